"""The overlay on disk: patches, the quilt series, the manifest and the lock.

``carried`` loads all of them and checks that they agree.
"""
