"""Git in the user's clone: objects, index and state, read without its configuration.

``places`` finds the clone's git directories and asks whether the user's git trusts it;
``clones`` runs git there; ``batch`` reads objects; ``index`` and ``state`` find what a
commit would overwrite; ``merge`` makes three-way merges in a scratch store.
"""
