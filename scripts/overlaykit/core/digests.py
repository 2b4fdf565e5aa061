"""Digests of contents."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path


def sha256(data: bytes) -> str:
    """The digest with the name of its kind, as records and reports have it."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def of_files(root: Path, paths: Iterable[Path]) -> str:
    """The sha256 of the files' paths below ``root`` and their contents, in order."""
    total = hashlib.sha256()
    for path in paths:
        total.update(f"{path.relative_to(root)}\0".encode())
        total.update(hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()
