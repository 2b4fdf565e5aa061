"""A cache of facts by content, so that each tree is analyzed once.

An entry belongs to one tree (the wheel's digest or git's tree id), one overlay, one
version of this program, and everything around it that may change what running the
tree's code shows. A damaged entry, or one for anything else, counts as missing.
"""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

from overlaykit.core.digests import of_program
from overlaykit.core.kept import FOLDER, Kept, key_of
from overlaykit.series.lock import LOCK
from upstream.facts import Facts
from xscale.numeric.inputs import surroundings

_PACKAGES = ("overlaykit", "xscale", "upstream")


class FactsCache:
    """The entries of one overlay, in ``build/cache/drift``."""

    def __init__(self, root: Path, with_kernels: bool = False) -> None:
        """``with_kernels`` says whether AITER's are there to be run."""
        self._kept: Kept[Facts] = Kept(root / FOLDER / "drift", Facts)
        lock, program = _digest(root)
        around = surroundings("cpu")
        # Where what is around cannot be named, nothing is kept.
        self._around = around and {
            **around,
            "program": program,
            "overlay.lock": lock,
            "kernels": str(with_kernels),
        }

    def _key(self, target: str, identity: str, run: bool) -> str | None:
        if self._around is None:
            return None
        inputs = {"target": target, "tree": identity, "run": str(run)}
        return key_of({**self._around, **inputs})

    def load(self, target: str, identity: str, run: bool = True) -> Facts | None:
        """The cached facts of a tree, or None if there is no valid entry. Without
        ``run``, those of a tree that was not run are enough."""
        for was_run in (True,) if run else (True, False):
            key = self._key(target, identity, was_run)
            facts = self._kept.load(key) if key is not None else None
            if facts is not None:
                return facts
        return None

    def save(self, target: str, identity: str, facts: Facts, run: bool = True) -> None:
        """Write an entry, unless the facts may be others the next time. If the cache is
        not writable, the next run is just slower."""
        key = self._key(target, identity, run)
        if key is not None and facts.sure:
            self._kept.save(key, facts)


@cache
def _digest(root: Path) -> tuple[str, str]:
    """Digests of the overlay's lock and of this program's source."""
    lock = hashlib.sha256((root / LOCK).read_bytes()).hexdigest()
    return lock, of_program(*_PACKAGES, scripts=Path(__file__).resolve().parents[1])
