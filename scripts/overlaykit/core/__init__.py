"""The lowest room: errors, running git, files, paths, documents.

Nothing here knows about trees, patches or clones.
"""
