"""Read-only trees of files, named by their path in the upstream repository.

A tree is asked for single files and never walked unless somebody walks it, so the
cost of planning does not grow with upstream. A wheel is read in place. Where a
distribution lays a package elsewhere than the repository does (SGLang's repository
holds ``python/sglang``, its wheel ``sglang``), a :class:`Layout` translates, so one
path serves every tree.
"""

from __future__ import annotations

import os
import stat
import subprocess
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from overlaykit import git, members
from overlaykit.errors import CannotApply, EnvironmentFailure, Finding, InputError
from overlaykit.paths import OWN_FOLDER, check_path

_SKIPPED_FOLDERS = {".git", ".hg", "__pycache__", ".venv", "node_modules", OWN_FOLDER}


class Tree(Protocol):
    """Files by their upstream repository path, in POSIX form."""

    @property
    def name(self) -> str:
        """What a message calls this tree."""

    def read(self, path: str) -> bytes | None:
        """The file's bytes; None where the tree has no such file."""

    def holds(self, path: str) -> bool:
        """Whether this kind of tree has a place for the path, file there or not."""

    def paths(self) -> Iterator[str]:
        """All paths, in no order. Walks the whole tree."""


@dataclass(frozen=True)
class Layout:
    """Pairs of prefixes, (in the repository, in the tree), the first match counts."""

    prefixes: tuple[tuple[str, str], ...] = (("", ""),)

    def inside(self, path: str) -> str | None:
        """Where the tree holds the repository's ``path``; None where it does not."""
        for repository, tree in self.prefixes:
            if path.startswith(repository):
                return tree + path[len(repository) :]
        return None

    def outside(self, path: str) -> str | None:
        """The repository's name of the tree's ``path``; None where it has none."""
        for repository, tree in self.prefixes:
            if path.startswith(tree):
                return repository + path[len(tree) :]
        return None


REPOSITORY = Layout()


@dataclass(frozen=True)
class DirectoryTree:
    """A directory: a clone's work tree, an unpacked source, an installed package."""

    root: Path
    layout: Layout = REPOSITORY

    @property
    def name(self) -> str:
        return str(self.root)

    def holds(self, path: str) -> bool:
        return self.layout.inside(path) is not None

    def locate(self, path: str) -> Path:
        """The file's place on disk.

        Raises CannotApply where a link stands in the way: a write through it would
        change something outside the tree, or a file that other names share.
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
                            next_step="replace the link by the file it points to",
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
                    f"{self.name}: refusing to touch what is no file",
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
            folders[:] = sorted(f for f in folders if f not in _SKIPPED_FOLDERS)
            base = os.path.relpath(folder, self.root)
            for file in files:
                inside = file if base == "." else f"{base}/{file}".replace(os.sep, "/")
                path = self.layout.outside(inside)
                if path is not None:
                    yield path


class WheelTree:
    """A wheel, read in place."""

    def __init__(self, wheel: Path, layout: Layout = REPOSITORY) -> None:
        """Raises EnvironmentFailure where the file is missing or no zip file, and
        InputError, by the member's name, where it holds what no package holds."""
        self.layout = layout
        self.name = wheel.name
        try:
            self._zip = zipfile.ZipFile(wheel)
        except (OSError, zipfile.BadZipFile) as error:
            raise EnvironmentFailure(f"cannot read {wheel}: {error}") from error
        self._infos = members.members(self._zip, self.name, layout.outside)

    def read(self, path: str) -> bytes | None:
        inside = self.layout.inside(path)
        if inside is None or inside not in self._infos:
            return None
        return members.read(self._zip, self._infos[inside], self.name)

    def holds(self, path: str) -> bool:
        return self.layout.inside(path) is not None

    def mode(self, path: str) -> str:
        """The git mode of a file that the wheel holds."""
        info = self._infos[self.layout.inside(path) or ""]
        return "100755" if (info.external_attr >> 16) & 0o100 else "100644"

    def paths(self) -> Iterator[str]:
        for inside in self._infos:
            path = self.layout.outside(inside)
            if path is not None:
                yield path


class GitTree:
    """A commit or tree of a clone, read by one long-lived ``git cat-file --batch``."""

    def __init__(self, clone: Path, treeish: str) -> None:
        """Raises InputError where the clone has no such tree."""
        found = git.run(
            clone, "rev-parse", "--verify", "-q", f"{treeish}^{{tree}}", ok=(0, 1, 128)
        )
        if found.returncode:
            raise InputError(f"{clone} has no tree {treeish!r}")
        self.id = found.stdout.decode().strip()
        self.name = f"{clone}@{treeish}"
        self._clone = clone
        self._batch = subprocess.Popen(
            ["git", "cat-file", "--batch"],
            cwd=clone,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=git.environment(clone),
        )

    def holds(self, path: str) -> bool:
        return True

    def read(self, path: str) -> bytes | None:
        check_path(path)
        return self.read_object(f"{self.id}:{path}")

    def read_object(self, name: str) -> bytes | None:
        """Any object by id or ``tree:path``; None where there is none."""
        assert self._batch.stdin is not None and self._batch.stdout is not None
        self._batch.stdin.write(name.encode() + b"\n")
        self._batch.stdin.flush()
        header = self._batch.stdout.readline().split(b" ")
        if len(header) != 3 or not header[2].strip().isdigit():
            return None
        data = self._batch.stdout.read(int(header[2]) + 1)
        return data[:-1] if header[1] == b"blob" else None

    def paths(self) -> Iterator[str]:
        yield from (path for path, _ in self.entries())

    def entries(self) -> Iterator[tuple[str, str]]:
        """All paths with their git modes. Raises InputError for a path that no honest
        clone has: git itself checks out none, but a tree object may hold it."""
        listed = git.run(self._clone, "ls-tree", "-r", "-z", self.id).stdout
        for row in filter(None, listed.split(b"\0")):
            about, _, name = row.partition(b"\t")
            path = os.fsdecode(name)
            check_path(path)
            yield path, about.partition(b" ")[0].decode()

    def close(self) -> None:
        """End the git process."""
        if self._batch.stdin is not None:
            self._batch.stdin.close()
        if self._batch.stdout is not None:
            self._batch.stdout.close()
        self._batch.wait()

    def __enter__(self) -> GitTree:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def checked_out(clone: Path) -> GitTree | None:
    """What a clone's HEAD holds; None where there is no clone, or no commit yet."""
    if git.top_of_clone(clone) is None:
        return None
    head = git.run(clone, "rev-parse", "--verify", "-q", "HEAD", ok=(0, 1, 128))
    return GitTree(clone, "HEAD") if head.returncode == 0 else None


@dataclass(frozen=True)
class EditedTree:
    """A tree with some files changed; None stands for a file taken away."""

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
