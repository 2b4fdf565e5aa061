"""Git's names for contents, computed without git.

A blob id says which bytes a file holds; comparing ids is how a tree is recognised,
so it must cost a hash and no process. Formats: gitformat-index(5), git-hash-object(1).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass


def _object_id(kind: str, data: bytes) -> str:
    return hashlib.sha1(
        f"{kind} {len(data)}\0".encode() + data, usedforsecurity=False
    ).hexdigest()


def blob_id(data: bytes) -> str:
    """The id that ``git hash-object`` gives ``data`` (40 hex digits, SHA-1)."""
    return _object_id("blob", data)


@dataclass(frozen=True)
class Entry:
    """A file of a tree: git mode (``100644`` or ``100755``) and blob id."""

    mode: str
    blob: str


def tree_id(entries: Mapping[str, Entry]) -> str:
    """The id that ``git write-tree`` gives an index of just these files."""
    files: dict[str, Entry] = {}
    folders: dict[str, dict[str, Entry]] = {}
    for path, entry in entries.items():
        head, _, rest = path.partition("/")
        if rest:
            folders.setdefault(head, {})[rest] = entry
        else:
            files[head] = entry
    rows = [(name, e.mode, e.blob) for name, e in files.items()]
    # Git orders a folder as if its name ended in a slash.
    rows += [(name + "/", "40000", tree_id(sub)) for name, sub in folders.items()]
    body = b"".join(
        f"{mode} {name.rstrip('/')}\0".encode() + bytes.fromhex(oid)
        for name, mode, oid in sorted(rows)
    )
    return _object_id("tree", body)
