"""The base of a target: one kind for everything else, a package or a commit below.

A base is read from the cache, from a clone that is given, or from where overlay.toml
says it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from overlaykit.core.errors import InputError
from overlaykit.repository.places import RefusedClone
from overlaykit.series.carried import Carried
from overlaykit.series.lock import LOCK, LockedTarget, TreeWithModes
from overlaykit.series.manifest import Target
from overlaykit.sources import commits, laying, packages
from overlaykit.sources.commits import Fetched
from overlaykit.sources.laying import Label, Progress
from overlaykit.trees.tree import Tree, head_tree


@dataclass(frozen=True)
class _BlobTree:
    """The touched files from a clone's object store, not from its work tree."""

    name: str
    files: dict[str, bytes]

    def read(self, path: str) -> bytes | None:
        return self.files.get(path)

    def holds(self, path: str) -> bool:
        return True

    def paths(self) -> Iterator[str]:
        yield from self.files


def cached(root: Path, carried: Carried) -> TreeWithModes | None:
    """The pinned base from the cache; None if it is absent or different."""
    target, lock = carried.target, carried.lock
    if lock.dist is not None:
        return packages.cached(root, target, lock.dist)
    return commits.stored(root, target, _commit(lock))


def fetched(
    root: Path, target: Target, lock: LockedTarget, sources: Sequence[Path] = ()
) -> tuple[TreeWithModes, Fetched | None]:
    """The pinned base, from the cache, from one of the clones ``sources`` or from the
    network; and what was fetched of a commit.

    Raises as :func:`packages.fetch` and :func:`commits.obtain` do.
    """
    if lock.dist is not None:
        wheel = packages.fetch(root, target, lock.dist)
        return packages.wheel_tree(wheel, target), None
    return commits.obtain(root, target, _commit(lock), sources)


def fetch_base(root: Path, carried: Carried) -> TreeWithModes:
    """The pinned base of a target; see :func:`fetched`."""
    return fetched(root, carried.target, carried.lock)[0]


def lay_out(
    carried: Carried, tree: TreeWithModes, folder: Path, progress: Progress
) -> bool:
    """Lay out the pinned base; see :func:`laying.lay_out`."""
    return laying.lay_out(tree, label(carried), folder, progress)


def label(carried: Carried) -> Label:
    """What the laid-out base is called."""
    target, lock = carried.target, carried.lock
    if lock.dist is not None:
        return laying.release_label(target, lock.dist)
    return laying.commit_label(target, _commit(lock))


def _commit(lock: LockedTarget) -> str:
    if lock.commit is None:
        raise InputError(f"{LOCK} records neither a package nor a commit of a base")
    return lock.commit


@contextmanager
def pinned_base(root: Path, carried: Carried, tree: Path) -> Iterator[Tree | None]:
    """The pin's touched files, from the clone at ``tree`` by blob id or else from the
    cache; None if neither has them.

    Raises RefusedClone if the cache lacks them and git refuses the clone.
    """
    refused = None
    try:
        head = head_tree(tree)
    except RefusedClone as error:
        head, refused = None, error
    if head is not None:
        with head:
            files = {
                path: data
                for path, chain in carried.chains.items()
                if (data := head.read_object(chain[0])) is not None
            }
        if len(files) == len(carried.chains):
            yield _BlobTree(f"{tree} (objects)", files)
            return
    base = cached(root, carried)
    if base is None and refused is not None:
        raise refused
    yield base
