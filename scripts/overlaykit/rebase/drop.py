"""Removes a base from the overlay: its table, its patches, its part of the lock."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from overlaykit.applying.transaction import hold
from overlaykit.core.errors import Finding, InputError
from overlaykit.planning.plan import FileChange
from overlaykit.rebase.folder import active_rebases
from overlaykit.series.carried import load_overlay, new_files_folder, series_folder
from overlaykit.series.lock import LOCK, encode_lock, load_lock, new_lock
from overlaykit.series.manifest import MANIFEST
from overlaykit.series.tables import without_table
from overlaykit.trees.tree import DirectoryTree


def drop(root: Path, name: str) -> tuple[FileChange, ...]:
    """Remove the base, all or nothing; returns the changes.

    New files that other bases share go to the first of them. Raises InputError if there
    is no such base, if it is the last one, or if a rebase of it is active.
    """
    with hold(DirectoryTree(root), f"the base {name} is removed") as transaction:
        _refuse(root, name)
        tree = DirectoryTree(root)
        manifest, heir = without_table((root / MANIFEST).read_bytes(), name)
        left = {n: t for n, t in load_lock(root).targets.items() if n != name}
        wanted: dict[str, bytes | None] = {}
        modes: dict[str, str] = {}
        for path in _files(root, series_folder(Path(), name)):
            wanted[path] = None
        home = new_files_folder(Path(), name).as_posix()
        for path in _files(root, Path(home)):
            wanted[path] = None
            if heir is not None:
                other = f"{new_files_folder(Path(), heir)}{path.removeprefix(home)}"
                wanted[other] = tree.read(path)
                modes[other] = _mode(root / path)
        wanted[MANIFEST] = manifest
        wanted[LOCK] = encode_lock(new_lock(manifest, left))
        changes = tuple(
            FileChange(path, modes.get(path, "100644"), tree.read(path), data)
            for path, data in wanted.items()
        )
        transaction.stage(changes)
        transaction.swap()
        transaction.finish()
    return changes


def _refuse(root: Path, name: str) -> None:
    overlay = load_overlay(root)
    if name not in overlay:
        known = ", ".join(overlay)
        finding = Finding("no such base", found=name, expected=f"one of {known}")
        raise InputError(f"no target {name}", (finding,))
    if len(overlay) == 1:
        finding = Finding(
            "is the only target", path=MANIFEST, next_step="adopt another base first"
        )
        raise InputError(f"{name} cannot be removed", (finding,))
    for work in active_rebases(root):
        if name in (work.request.start, work.request.target):
            step = "adopt that rebase, or end it with --abort"
            finding = Finding("a rebase of it", path=str(work.folder), next_step=step)
            raise InputError(f"a rebase of {name} is active", (finding,))


def _files(root: Path, folder: Path) -> Iterator[str]:
    for place in sorted((root / folder).rglob("*")):
        if place.is_file() and "__pycache__" not in place.parts:
            yield place.relative_to(root).as_posix()


def _mode(place: Path) -> str:
    return "100755" if place.stat().st_mode & 0o100 else "100644"
