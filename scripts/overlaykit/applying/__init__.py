"""Changing a tree: all of a plan or nothing, through crashes and interrupts.

``transaction`` is the only writer. ``targets`` says which target a path holds,
``inspection`` whether a tree is exactly what the series promises, ``commits`` and
``branches`` make the series' commits in a clone.
"""
