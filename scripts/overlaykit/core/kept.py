"""Answers that are kept on disk by content, so that each is computed once.

A key is a digest of everything that the answer depends on. So an entry is never out of
date: where an input is another one, so is the key. An entry that is damaged, or that
belongs to another key, counts as missing. Processes may read and write at the same
time: an entry is written whole. The folder is bounded; what was not needed for longest
is removed first.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Generic, TypeVar

import msgspec

from overlaykit.core.documents import from_json, to_json_line
from overlaykit.core.files import write_file

T = TypeVar("T")

FOLDER = Path("build") / "cache"
"""Where the kept answers of an overlay are, below its root."""
_MOST_BYTES = 64 << 20
_SUFFIX = ".json"


class _Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    key: str
    digest: str
    answer: msgspec.Raw


class Kept(Generic[T]):
    """The answers of one kind in a folder of their own."""

    def __init__(self, folder: Path, kind: Any, most_bytes: int = _MOST_BYTES) -> None:
        self._folder, self._kind, self._most = folder, kind, most_bytes
        # Unknown until the first entry is written.
        self._size: int | None = None

    def load(self, key: str) -> T | None:
        """The kept answer, or None if there is no valid entry."""
        place = self._place(key)
        try:
            entry = from_json(place.read_bytes(), _Entry)
            body = bytes(entry.answer)
            if (entry.key, entry.digest) != (key, _sum(key, body)):
                return None
            found: T = from_json(body, self._kind)
        except (OSError, msgspec.DecodeError):
            return None
        with suppress(OSError):
            os.utime(place)
        return found

    def save(self, key: str, answer: T) -> None:
        """Write an entry. If the folder is not writable, the next run is just
        slower."""
        body = to_json_line(answer)
        data = msgspec.json.encode(_Entry(key, _sum(key, body), msgspec.Raw(body)))
        with suppress(OSError):
            self._folder.mkdir(parents=True, exist_ok=True)
            write_file(self._place(key), data, durable=False)
            self._bound(len(data))

    def _place(self, key: str) -> Path:
        return self._folder / f"{key}{_SUFFIX}"

    def _bound(self, more: int) -> None:
        """Remove the oldest entries if there are too many. What another process writes
        meanwhile is counted when the next one looks."""
        if self._size is not None:
            self._size += more
            if self._size <= self._most:
                return
        entries = sorted(_listed(self._folder))
        self._size = sum(size for _, size, _ in entries)
        if self._size <= self._most:
            return
        for _, size, place in entries:
            # Some more than necessary, so that it is not done for every entry.
            if self._size <= self._most * 3 // 4:
                return
            place.unlink(missing_ok=True)
            self._size -= size


def _listed(folder: Path) -> list[tuple[int, int, Path]]:
    """When each entry was needed last, its size and its place. The remains of a process
    that was killed while it wrote count too."""
    found = []
    with os.scandir(folder) as places:
        for place in places:
            with suppress(FileNotFoundError):
                about = place.stat(follow_symlinks=False)
                found.append((about.st_mtime_ns, about.st_size, Path(place.path)))
    return found


def key_of(inputs: Mapping[str, str]) -> str:
    """The key of an answer with these inputs, by name."""
    text = msgspec.json.encode(sorted(inputs.items()))
    return hashlib.sha256(text).hexdigest()


def _sum(key: str, body: bytes) -> str:
    return hashlib.sha256(key.encode() + body).hexdigest()
