"""What a series would do to a tree, and whether every hunk lands in its own scope.

``plan`` is the only planner; apply, verify, drift, rebase and export use it.
"""
