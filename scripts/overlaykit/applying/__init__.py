"""Changing a tree: all of a plan or nothing, through crashes and interrupts.

``transaction`` is the only writer. ``targets`` finds the target at a path,
``inspection`` checks whether a tree is exactly what the lock records, ``commits`` and
``branches`` commit the series in a clone.
"""
