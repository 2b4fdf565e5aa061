"""What everything else stands on: errors, git as a process, files, paths, documents.

Nothing here knows of trees, patches or clones.
"""
