"""What is carried: patches, the quilt series, the manifest, and the lock that pins
them.

``carried`` loads all of it and checks that it agrees.
"""
