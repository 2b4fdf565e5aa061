"""Read-only trees of files, named by their path in the upstream repository.

Trees are read file by file and walked only on request, so the cost of planning does
not grow with upstream. A wheel is read in place. Where a distribution has a package at
another path than the repository (``python/sglang`` in SGLang's repository, ``sglang``
in its wheel), a :class:`Layout` translates, so one path works for every tree.
"""

from __future__ import annotations

import os
import stat
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from overlaykit.core import git
from overlaykit.core.errors import CannotApply, EnvironmentFailure, Finding, InputError
from overlaykit.core.objects import FOLDER, SUBMODULE, Row
from overlaykit.core.paths import OWN_FOLDER, check_path
from overlaykit.repository import clones
from overlaykit.repository.batch import Batch
from overlaykit.trees import members

SKIPPED_FOLDERS = {".git", ".hg", "__pycache__", ".venv", "node_modules", OWN_FOLDER}


class Tree(Protocol):
    """Files by their upstream repository path, in POSIX form."""

    @property
    def name(self) -> str:
        """The tree's name in messages."""

    def read(self, path: str) -> bytes | None:
        """The file's bytes; None if the tree has no such file."""

    def holds(self, path: str) -> bool:
        """Whether the path can exist in this kind of tree, even if it does not now."""

    def paths(self) -> Iterator[str]:
        """All paths, in any order. Walks the whole tree."""


@dataclass(frozen=True)
class Layout:
    """Pairs of prefixes, (in the repository, in the tree); the first match counts."""

    prefixes: tuple[tuple[str, str], ...] = (("", ""),)

    def inside(self, path: str) -> str | None:
        """The tree's path for the repository's ``path``; None if it has none."""
        for repository, tree in self.prefixes:
            if path.startswith(repository):
                return tree + path[len(repository) :]
        return None

    def outside(self, path: str) -> str | None:
        """The repository's path for the tree's ``path``; None if it has none."""
        for repository, tree in self.prefixes:
            if path.startswith(tree):
                return repository + path[len(tree) :]
        return None


REPOSITORY = Layout()


@dataclass(frozen=True)
class DirectoryTree:
    """A directory: a clone's work tree, a source tree or an installed package."""

    root: Path
    layout: Layout = REPOSITORY

    @property
    def name(self) -> str:
        return str(self.root)

    def holds(self, path: str) -> bool:
        return self.layout.inside(path) is not None

    def locate(self, path: str) -> Path:
        """The file's path on disk.

        Raises CannotApply if any part of it is a symbolic link: a write through it
        would change something outside the tree, or a shared file.
        """
        check_path(path)
        inside = self.layout.inside(path)
        if inside is None:
            raise InputError(f"{self.name} has no place for {path}")
        place = self.root
        for part in inside.split("/"):
            place = place / part
            if place.is_symlink():
                raise CannotApply(
                    f"{self.name}: refusing to touch a symbolic link",
                    (
                        Finding(
                            "is a symbolic link",
                            path=path,
                            expected="a regular file inside the tree",
                            found=f"{place} -> {place.readlink()}",
                            next_step="replace the link by the file that it points to",
                        ),
                    ),
                )
        return place

    def read(self, path: str) -> bytes | None:
        if not self.holds(path):
            return None
        place = self.locate(path)
        try:
            if not stat.S_ISREG(place.lstat().st_mode):
                raise CannotApply(
                    f"{self.name}: refusing to touch what is not a regular file",
                    (
                        Finding(
                            "is not a regular file",
                            path=path,
                            expected="a regular file",
                            next_step="restore the file from upstream",
                        ),
                    ),
                )
            return place.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise EnvironmentFailure(f"cannot read {place}: {error}") from error

    def paths(self) -> Iterator[str]:
        for folder, folders, files in os.walk(self.root):
            folders[:] = sorted(f for f in folders if f not in SKIPPED_FOLDERS)
            base = os.path.relpath(folder, self.root)
            for file in files:
                inside = file if base == "." else f"{base}/{file}".replace(os.sep, "/")
                path = self.layout.outside(inside)
                if path is not None:
                    yield path


class WheelTree:
    """A wheel, read in place."""

    def __init__(self, wheel: Path, layout: Layout = REPOSITORY) -> None:
        """Raises EnvironmentFailure if the file is missing or not a zip file, and
        InputError, which names the member, if it contains a forbidden member."""
        self.layout = layout
        self.name = wheel.name
        try:
            self._zip = zipfile.ZipFile(wheel)
        except (OSError, zipfile.BadZipFile) as error:
            raise EnvironmentFailure(f"cannot read {wheel}: {error}") from error
        self._infos = members.members(self._zip, self.name, layout.outside)
        self.searched: dict[tuple[str, tuple[bytes, ...]], dict[str, bytes]] = {}
        """What :mod:`overlaykit.trees.search` found, by folder and texts."""

    def read(self, path: str) -> bytes | None:
        inside = self.layout.inside(path)
        if inside is None or inside not in self._infos:
            return None
        return members.read(self._zip, self._infos[inside], self.name)

    def holds(self, path: str) -> bool:
        return self.layout.inside(path) is not None

    def mode(self, path: str) -> str:
        """The git mode of a file in the wheel."""
        info = self._infos[self.layout.inside(path) or ""]
        return "100755" if (info.external_attr >> 16) & 0o100 else "100644"

    def paths(self) -> Iterator[str]:
        for inside in self._infos:
            path = self.layout.outside(inside)
            if path is not None:
                yield path


class GitTree:
    """A commit or tree of a clone; paths are resolved here, not by git."""

    def __init__(self, clone: Path, treeish: str, objects: Batch | None = None) -> None:
        """``objects`` is the clone's, if several trees share it: then ``treeish`` is a
        commit's full id, and the owner closes it.

        Raises InputError if there is no such tree, EnvironmentFailure if it exists
        but is missing in a partial clone."""
        self.name = f"{clone}@{treeish}"
        self._clone = clone
        self._owns = objects is None
        if objects is None:
            self.id = self._resolve(treeish)
            self.objects = Batch(clone)
        else:
            self.objects = objects
            self.id = self._tree_of(treeish)

    def holds(self, path: str) -> bool:
        return True

    def read(self, path: str) -> bytes | None:
        """Raises EnvironmentFailure if the tree names the file but its object is
        missing."""
        mode, oid = self.entry(path) or ("", "")
        if mode in ("", FOLDER, SUBMODULE):
            return None
        if (data := self.read_object(oid)) is None:
            raise clones.missing_object(self._clone, path, oid)
        return data

    def entry(self, path: str) -> Row | None:
        """Mode and object id of a path, from the trees alone; None if there is none."""
        check_path(path)
        *folders, name = path.split("/")
        folder, above = self.id, ""
        for part in folders:
            mode, oid = self.folder(folder, above).get(part, ("", ""))
            if mode != FOLDER:
                return None
            folder, above = oid, f"{above}{part}/"
        return self.folder(folder, above).get(name)

    def read_object(self, oid: str) -> bytes | None:
        """A blob by its id; None if the clone does not have it."""
        return self.objects.blob(oid)

    def blobs(
        self, above: str, files: Mapping[str, str]
    ) -> Iterator[tuple[str, bytes]]:
        """The files of one folder, given their names and ids. Raises as :meth:`read`
        does."""
        answers = self.objects.read_all(list(files.values()))
        for (name, oid), (kind, data) in zip(files.items(), answers, strict=True):
            if kind != "blob":
                raise clones.missing_object(self._clone, above + name, oid)
            yield name, data

    def entries(self) -> Iterator[tuple[str, str]]:
        """All files, with their git modes; see :meth:`walk`."""
        return ((path, mode) for path, (mode, _) in self.walk() if mode != FOLDER)

    def walk(self) -> Iterator[tuple[str, Row]]:
        """Everything in the tree, folders too, with git modes and object ids.

        Raises InputError for a path that git would refuse to check out: a hostile tree
        object may contain one.
        """
        folders = [(self.id, "")]
        while folders:
            folder, above = folders.pop()
            for name, (mode, oid) in self.folder(folder, above).items():
                check_path(above + name)
                yield above + name, (mode, oid)
                if mode == FOLDER:
                    folders.append((oid, f"{above}{name}/"))

    def paths(self) -> Iterator[str]:
        return (path for path, _ in self.entries())

    def _resolve(self, treeish: str) -> str:
        def found(kind: str) -> str:
            done = clones.run(
                self._clone, "rev-parse", "--verify", "-q", "--end-of-options",
                f"{treeish}^{{{kind}}}", ok=(0, 1, 128),
            )  # fmt: skip
            return "" if done.returncode else done.stdout.decode().strip()

        if tree := found("tree"):
            return tree
        if commit := found("commit"):
            oid = clones.text(
                self._clone, "log", "-1", "--no-show-signature", "--format=%T", commit
            )
            raise clones.missing_object(self._clone, f"the tree of {treeish}", oid)
        raise InputError(f"{self._clone} has no tree {treeish!r}")

    def _tree_of(self, commit: str) -> str:
        """The tree of a commit, without a process."""
        kind, data = self.objects.read(commit)
        if kind != "commit":
            raise InputError(f"{self._clone} has no commit {commit!r}")
        oid = data.partition(b"\n")[0].removeprefix(b"tree ").decode()
        if self.objects.rows(oid) is None:
            raise clones.missing_object(self._clone, f"the tree of {commit}", oid)
        return oid

    def folder(self, oid: str, path: str) -> dict[str, Row]:
        """A folder's entries; read once."""
        rows = self.objects.rows(oid)
        if rows is None:
            raise clones.missing_object(self._clone, path or self.name, oid)
        return rows

    def close(self) -> None:
        """End the git process, if it is this tree's own."""
        if self._owns:
            self.objects.close()

    def __enter__(self) -> GitTree:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def head_tree(clone: Path) -> GitTree | None:
    """The tree of a clone's HEAD; None if there is no clone or no commit yet."""
    if git.top_of_clone(clone) is None:
        return None
    head = clones.run(clone, "rev-parse", "--verify", "-q", "HEAD", ok=(0, 1, 128))
    return GitTree(clone, "HEAD") if head.returncode == 0 else None


@dataclass(frozen=True)
class EditedTree:
    """A tree with some files changed; None means that the file is removed."""

    base: Tree
    changes: Mapping[str, bytes | None]

    @property
    def name(self) -> str:
        return f"{self.base.name} as planned"

    def holds(self, path: str) -> bool:
        return self.base.holds(path)

    def read(self, path: str) -> bytes | None:
        return self.changes[path] if path in self.changes else self.base.read(path)

    def paths(self) -> Iterator[str]:
        yield from (p for p in self.base.paths() if p not in self.changes)
        yield from (p for p, data in self.changes.items() if data is not None)
