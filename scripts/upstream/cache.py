"""A cache of facts by content, so that each tree is analyzed once.

An entry belongs to one tree (the wheel's digest or git's tree id), one overlay and one
version of this program. A damaged entry, or one for anything else, counts as missing.
"""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import msgspec

from overlaykit.core.documents import from_json, to_json_line
from overlaykit.core.files import write_file
from overlaykit.series.lock import LOCK
from upstream.facts import Facts

_RUNNING = ("torch", "triton", "numpy")
_PACKAGES = ("overlaykit", "xscale", "upstream")


class _Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    key: str
    digest: str
    facts: msgspec.Raw


class FactsCache:
    """The entries of one overlay, in ``build/cache/drift``."""

    def __init__(self, root: Path) -> None:
        self._folder = root / "build" / "cache" / "drift"
        self._digests = _digest(root)

    def _key(self, target: str, identity: str) -> str:
        text = "\0".join((*self._digests, _runs(), target, identity))
        return hashlib.sha256(text.encode()).hexdigest()

    def load(self, target: str, identity: str) -> Facts | None:
        """The cached facts of a tree, or None if there is no valid entry."""
        key = self._key(target, identity)
        try:
            data = (self._folder / f"{key}.json").read_bytes()
            entry = from_json(data, _Entry)
            if (entry.key, entry.digest) != (key, _sum(key, bytes(entry.facts))):
                return None
            return from_json(bytes(entry.facts), Facts)
        except (OSError, msgspec.DecodeError):
            return None

    def save(self, target: str, identity: str, facts: Facts) -> None:
        """Write an entry. If the cache is not writable, the next run is just slower."""
        key = self._key(target, identity)
        body = to_json_line(facts)
        data = msgspec.json.encode(_Entry(key, _sum(key, body), msgspec.Raw(body)))
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            write_file(self._folder / f"{key}.json", data, durable=False)
        except OSError:
            return


def _runs() -> str:
    """Whether this Python can run a tree's code: without it facts say less."""
    return " ".join(f"{name}={find_spec(name) is not None}" for name in _RUNNING)


def _sum(key: str, body: bytes) -> str:
    return hashlib.sha256(key.encode() + body).hexdigest()


@cache
def _digest(root: Path) -> tuple[str, str]:
    """Digests of the overlay's lock and of this program's source."""
    lock = hashlib.sha256((root / LOCK).read_bytes()).hexdigest()
    program = hashlib.sha256()
    scripts = Path(__file__).resolve().parents[1]
    for package in _PACKAGES:
        for path in sorted((scripts / package).rglob("*.py")):
            program.update(f"{path.relative_to(scripts)}\0".encode())
            program.update(hashlib.sha256(path.read_bytes()).digest())
    return lock, program.hexdigest()
