"""A commit's package, read from a repository of this project that has just that."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

from overlaykit.core.errors import EnvironmentFailure, Finding
from overlaykit.trees.tree import GitTree

_FILES = ("100644", "100755")


class CommitTree:
    """The files below the package's root at a commit, by their repository path.

    Symbolic links and submodules are left out, as they are from a package. Git runs
    once the first file is read.
    """

    def __init__(self, store: Path, commit: str, package_root: str, name: str) -> None:
        self.name = name
        self.commit = commit
        self._store = store
        self._within = f"{package_root}/"
        self.searched: dict[tuple[str, tuple[bytes, ...]], dict[str, bytes]] = {}
        """As :attr:`WheelTree.searched`."""

    @cached_property
    def _tree(self) -> GitTree:
        tree = GitTree(self._store, self.commit)
        weakref.finalize(self, tree.close)
        return tree

    @cached_property
    def blobs(self) -> dict[str, tuple[str, str]]:
        """Mode and blob id of every file of the package, by path."""
        return {
            path: (mode, oid)
            for path, (mode, oid) in self._tree.walk()
            if mode in _FILES and self.holds(path)
        }

    def holds(self, path: str) -> bool:
        return path.startswith(self._within)

    def takes(self, path: str) -> bool:
        """Whether the commit has anything at a path, in the package or beside it."""
        return self._tree.entry(path) is not None

    def blob(self, path: str) -> str | None:
        """The blob id of a file; None if the package has no such file."""
        entry = self._tree.entry(path) if self.holds(path) else None
        return entry[1] if entry is not None and entry[0] in _FILES else None

    def read(self, path: str) -> bytes | None:
        """Raises EnvironmentFailure if the repository lacks the file's contents."""
        if (oid := self.blob(path)) is None:
            return None
        if (data := self._tree.read_object(oid)) is None:
            finding = Finding(
                "is missing",
                path=path,
                expected=f"object {oid} in {self._store}",
                next_step=f"remove {self._store}, then run scripts/fetch.py",
            )
            raise EnvironmentFailure(f"{self._store} is damaged", (finding,))
        return data

    def mode(self, path: str) -> str:
        """The git mode of a file of the package."""
        return self.blobs[path][0]

    def paths(self) -> Iterator[str]:
        return iter(self.blobs)
