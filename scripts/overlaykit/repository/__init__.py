"""Git in somebody's clone: objects, index and state, read without running its config.

``places`` finds what git keeps where and whether the user's git trusts it; ``clones``
runs git there; ``batch`` reads objects; ``index`` and ``state`` say what a commit would
meet; ``merge`` makes three-way merges in a scratch store.
"""
