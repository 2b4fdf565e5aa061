"""Git object ids, computed without git.

A blob id identifies the bytes of a file. Trees are recognised by comparing ids, so
an id must cost one hash and no process. Formats: gitformat-index(5),
git-hash-object(1).
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

Row = tuple[str, str]
"""The mode and the id of a name in a tree object."""
FOLDER, SUBMODULE = "40000", "160000"


def encode_object(kind: str, data: bytes) -> bytes:
    """An object as git hashes and stores it."""
    return f"{kind} {len(data)}\0".encode() + data


def object_id(kind: str, data: bytes) -> str:
    """The name git gives an object (40 hex digits, SHA-1)."""
    return hashlib.sha1(encode_object(kind, data), usedforsecurity=False).hexdigest()


def blob_id(data: bytes) -> str:
    """The id that ``git hash-object`` gives ``data``."""
    return object_id("blob", data)


@dataclass(frozen=True)
class Entry:
    """A file of a tree: git mode (``100644`` or ``100755``) and blob id."""

    mode: str
    blob: str


def tree_id(
    entries: Mapping[str, Entry], write: Callable[[str, bytes], str] = object_id
) -> str:
    """The id that ``git write-tree`` gives an index of exactly these files.

    ``write`` is called with every tree object, leaves first, and returns its id.
    """
    folders: dict[str, dict[str, Entry]] = {}
    rows = []
    for path, entry in entries.items():
        head, slash, rest = path.partition("/")
        if slash:
            folders.setdefault(head, {})[rest] = entry
        else:
            rows.append((head, entry.mode, entry.blob))
    # Git orders a folder as if its name ended in a slash.
    rows += [(f"{name}/", FOLDER, tree_id(sub, write)) for name, sub in folders.items()]
    body = b"".join(
        os.fsencode(f"{mode} {name.rstrip('/')}\0") + bytes.fromhex(oid)
        for name, mode, oid in sorted(rows)
    )
    return write("tree", body)


def tree_rows(data: bytes, width: int) -> Iterator[tuple[str, Row]]:
    """The rows of a tree object whose ids are ``width`` bytes. Raises ValueError if it
    is not a tree object."""
    at = 0
    while at < len(data):
        space, end = data.index(b" ", at), data.index(b"\0", at)
        mode, name = data[at:space].decode(), os.fsdecode(data[space + 1 : end])
        at = end + 1 + width
        yield name, (mode.lstrip("0"), data[end + 1 : at].hex())
