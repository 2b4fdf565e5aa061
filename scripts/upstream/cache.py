"""A cache of facts by content, so that each tree is analyzed once.

An entry belongs to one tree (the wheel's digest or git's tree id), one overlay and one
version of this program. A damaged entry, or one for anything else, counts as missing.
"""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from overlaykit.core.digests import of_program
from overlaykit.core.kept import FOLDER, Kept, key_of
from overlaykit.series.lock import LOCK
from upstream.facts import Facts

_RUNNING = ("torch", "triton", "numpy")
_PACKAGES = ("overlaykit", "xscale", "upstream")


class FactsCache:
    """The entries of one overlay, in ``build/cache/drift``."""

    def __init__(self, root: Path) -> None:
        self._kept: Kept[Facts] = Kept(root / FOLDER / "drift", Facts)
        self._digests = _digest(root)

    def _key(self, target: str, identity: str) -> str:
        lock, program = self._digests
        return key_of(
            {
                "lock": lock,
                "program": program,
                "runs": _runs(),
                "target": target,
                "tree": identity,
            }
        )

    def load(self, target: str, identity: str) -> Facts | None:
        """The cached facts of a tree, or None if there is no valid entry."""
        return self._kept.load(self._key(target, identity))

    def save(self, target: str, identity: str, facts: Facts) -> None:
        """Write an entry. If the cache is not writable, the next run is just slower."""
        self._kept.save(self._key(target, identity), facts)


def _runs() -> str:
    """Whether this Python can run a tree's code: without it facts say less."""
    return " ".join(f"{name}={find_spec(name) is not None}" for name in _RUNNING)


@cache
def _digest(root: Path) -> tuple[str, str]:
    """Digests of the overlay's lock and of this program's source."""
    lock = hashlib.sha256((root / LOCK).read_bytes()).hexdigest()
    return lock, of_program(*_PACKAGES, scripts=Path(__file__).resolve().parents[1])
