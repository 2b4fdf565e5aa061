"""Where the pinned contents of a target can be had from, without a network."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from overlaykit.carried import Carried
from overlaykit.git import top_of_clone
from overlaykit.sources import cached
from overlaykit.trees import GitTree, Tree


@dataclass(frozen=True)
class _BlobTree:
    """The touched files as a clone's object store has them, whatever is checked out."""

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
    """The pin's touched files: from the clone at ``tree`` by blob id, else from the
    fetched package; None where neither has them."""
    clone = top_of_clone(tree)
    if clone is not None:
        with GitTree(clone, "HEAD") as git_tree:
            files = {
                path: data
                for path, chain in carried.chains.items()
                if (data := git_tree.read_object(chain[0])) is not None
            }
        if len(files) == len(carried.chains):
            yield _BlobTree(f"{clone} (objects)", files)
            return
    yield cached(root, carried)
