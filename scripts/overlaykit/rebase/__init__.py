"""The series, re-made for another base.

``compute`` is the pure function; ``routes`` finds where each hunk goes, ``moves``
follows functions that moved, ``conflicts`` asks the maintainer, ``folder`` keeps a
rebase on disk, ``adopt`` makes the result a base of the overlay.
"""
