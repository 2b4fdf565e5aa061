"""Rebases the series onto another base.

``compute`` is the pure function. ``routes`` finds the place of each hunk, ``moves``
follows functions that moved, ``conflicts`` presents a conflict to the maintainer,
``folder`` stores a rebase on disk, ``requests`` begins one, ``adopt`` adds the result
to the overlay. ``imports`` finds imports that the new base cannot serve.
"""
