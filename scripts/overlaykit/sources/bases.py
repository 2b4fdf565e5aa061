"""Finds the pinned contents of a target without a network."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from overlaykit.repository.places import RefusedClone
from overlaykit.series.carried import Carried
from overlaykit.sources.packages import cached
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


@contextmanager
def pinned_base(root: Path, carried: Carried, tree: Path) -> Iterator[Tree | None]:
    """The pin's touched files, from the clone at ``tree`` by blob id or else from the
    fetched package; None if neither has them.

    Raises RefusedClone if the package is missing and git refuses the clone.
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
    package = cached(root, carried)
    if package is None and refused is not None:
        raise refused
    yield package
