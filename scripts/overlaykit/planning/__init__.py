"""Plans what a series does to a tree, and checks that each hunk lands in its scope.

``plan`` is the only planner: apply, verify, drift, rebase and export use it.
"""
