"""Finding the files of a tree that contain one of some texts.

A package has thousands of files, and most questions are about a few of them. A folder
of a clone is searched once: a tree of another commit that has the same folder takes
the answer over, so the cost is that of what differs between them.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

from overlaykit.core.errors import CannotApply, EnvironmentFailure
from overlaykit.core.objects import FOLDER, SUBMODULE
from overlaykit.core.paths import check_path
from overlaykit.trees.commit import CommitTree
from overlaykit.trees.tree import (
    SKIPPED_FOLDERS,
    DirectoryTree,
    EditedTree,
    GitTree,
    Tree,
    WheelTree,
)

_SUFFIX = ".py"


def files_with(
    tree: Tree, below: str, texts: Sequence[bytes]
) -> Iterator[tuple[str, bytes]]:
    """The Python files below a folder with one of the texts, by path: path and source.

    ``below`` ends with a slash, or is empty for the whole tree. Files that are symbolic
    links are left out, except in a clone, which has only their texts. Raises what the
    tree raises for a file that cannot be read.
    """
    return iter(sorted(_found(tree, below, tuple(texts)).items()))


def _found(tree: Tree, below: str, texts: tuple[bytes, ...]) -> dict[str, bytes]:
    if isinstance(tree, EditedTree):
        found = _found(tree.base, below, texts)
        for path, data in tree.changes.items():
            found.pop(path, None)
            if data is not None and _is_meant(path, below) and _holds(data, texts):
                found[path] = data
        return found
    if isinstance(tree, GitTree):
        return _in_clone(tree, below, texts)
    if isinstance(tree, WheelTree | CommitTree):
        return dict(_in_base(tree, below, texts))
    contents = (
        _in_directory(tree, below)
        if isinstance(tree, DirectoryTree)
        else _in_others(tree, below)
    )
    return {path: data for path, data in contents if _holds(data, texts)}


def _holds(data: bytes, texts: Sequence[bytes]) -> bool:
    return any(text in data for text in texts)


def _is_meant(path: str, below: str) -> bool:
    return path.startswith(below) and path.endswith(_SUFFIX)


def _in_others(tree: Tree, below: str) -> Iterator[tuple[str, bytes]]:
    for path in tree.paths():
        if _is_meant(path, below):
            try:
                yield path, tree.read(path) or b""
            except CannotApply:
                # A link, or not a file at all.
                continue


def _in_directory(tree: DirectoryTree, below: str) -> Iterator[tuple[str, bytes]]:
    """Reads as :meth:`DirectoryTree.read` does. The folders on the way to a file are
    known not to be links, so they are not looked at for each file."""
    skip = len(str(tree.root).rstrip("/")) + 1
    folders = [str(place) for place in _starts(tree, below)]
    while folders:
        for entry in _listed(folders.pop()):
            if entry.is_dir(follow_symlinks=False):
                if entry.name not in SKIPPED_FOLDERS:
                    folders.append(entry.path)
                continue
            if not entry.name.endswith(_SUFFIX):
                continue
            path = tree.layout.outside(entry.path[skip:])
            if path is None or not path.startswith(below):
                continue
            check_path(path)
            if entry.is_file(follow_symlinks=False):
                data = _read(Path(entry.path))
                if data is not None:
                    yield path, data


def _starts(tree: DirectoryTree, below: str) -> Iterator[Path]:
    """The folders that hold everything below: an installed package has thousands of
    neighbours."""
    inside = {
        place + below[len(repository) :] if below.startswith(repository) else place
        for repository, place in tree.layout.prefixes
        if below.startswith(repository) or repository.startswith(below)
    }
    for one in sorted(inside):
        if not any(one != other and one.startswith(other) for other in inside):
            start = tree.root
            for part in filter(None, one.split("/")):
                start = start / part
                if part in SKIPPED_FOLDERS or start.is_symlink():
                    break
            else:
                yield start


def _listed(folder: str) -> list[os.DirEntry[str]]:
    """As os.walk does: what may not be listed has no files."""
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError:
        return []


def _read(place: Path) -> bytes | None:
    """A regular file's bytes. None if it has just become something else."""
    try:
        handle = os.open(place, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    except OSError as error:
        if place.is_symlink():
            return None
        raise EnvironmentFailure(f"cannot read {place}: {error}") from error
    with os.fdopen(handle, "rb", buffering=0) as file:
        try:
            if stat.S_ISREG(os.fstat(handle).st_mode):
                return file.readall()
        except OSError as error:
            raise EnvironmentFailure(f"cannot read {place}: {error}") from error
    return None


def _in_base(
    tree: WheelTree | CommitTree, below: str, texts: tuple[bytes, ...]
) -> dict[str, bytes]:
    """Searched once: nothing writes to the base in the cache."""
    key = below, texts
    if key not in tree.searched:
        contents = _in_others(tree, below)
        tree.searched[key] = {
            path: data for path, data in contents if _holds(data, texts)
        }
    return tree.searched[key]


def _in_clone(tree: GitTree, below: str, texts: tuple[bytes, ...]) -> dict[str, bytes]:
    *names, rest = below.split("/")
    if rest:
        raise ValueError(f"not a folder: {below}")
    folder, above = tree.id, ""
    for name in names:
        mode, oid = tree.folder(folder, above).get(name, ("", ""))
        if mode != FOLDER:
            return {}
        folder, above = oid, f"{above}{name}/"
    found = {}
    for path, oid in _in_folder(tree, folder, above, texts):
        data = tree.objects.blob(oid)
        assert data is not None
        found[above + path] = data
    return found


def _in_folder(
    tree: GitTree, folder: str, above: str, texts: tuple[bytes, ...]
) -> tuple[tuple[str, str], ...]:
    """Paths in a folder and their blobs. Looked up once for each folder's contents."""
    objects = tree.objects
    known = objects.searched.get((folder, texts))
    if known is not None:
        return known
    files: dict[str, str] = {}
    found: list[tuple[str, str]] = []
    for name, (mode, oid) in tree.folder(folder, above).items():
        if mode == FOLDER:
            inner = _in_folder(tree, oid, f"{above}{name}/", texts)
            found += [(f"{name}/{path}", blob) for path, blob in inner]
            continue
        check_path(above + name)
        if mode != SUBMODULE and name.endswith(_SUFFIX):
            files[name] = oid
    new = {n: oid for n, oid in files.items() if (oid, texts) not in objects.contain}
    for name, data in tree.blobs(above, new):
        objects.contain[files[name], texts] = _holds(data, texts)
    found += [(n, oid) for n, oid in files.items() if objects.contain[oid, texts]]
    objects.searched[folder, texts] = tuple(found)
    return tuple(found)
