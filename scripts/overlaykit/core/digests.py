"""Digests of contents."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from functools import cache
from itertools import chain
from pathlib import Path

SCRIPTS = Path(__file__).resolve().parents[2]


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


@cache
def of_program(*packages: str, scripts: Path = SCRIPTS) -> str:
    """The sha256 of this program's source: answers of another version of it are
    others."""
    found = (sorted((scripts / package).rglob("*.py")) for package in packages)
    return of_files(scripts, chain.from_iterable(found))
