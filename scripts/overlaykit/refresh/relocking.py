"""The file changes of an overlay with a new series or new files, lock included."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from overlaykit.core.errors import CannotApply, Finding, InputError
from overlaykit.planning.plan import FileChange
from overlaykit.series.carried import load_parts, new_files_folder, series_folder
from overlaykit.series.lock import LOCK, encode_lock, load_lock, new_lock
from overlaykit.series.manifest import MANIFEST
from overlaykit.series.quilt import NewFile, Series
from overlaykit.sources.bases import fetched
from overlaykit.sources.pinning import lock_base
from overlaykit.trees.tree import DirectoryTree


@dataclass(frozen=True)
class Parts:
    """A target's series and new files."""

    series: Series
    new_files: tuple[NewFile, ...]


def overlay_changes(root: Path, made: Mapping[str, Parts]) -> tuple[FileChange, ...]:
    """The file changes that give the overlay at ``root`` these parts and a new lock.

    Targets that share new files with one in ``made`` are locked again as well. Raises
    CannotApply if the lock refuses the parts. This writes nothing, so such parts never
    reach the disk.
    """
    manifest, loaded = load_parts(root)
    lock = load_lock(root)
    shared = {manifest.targets[name].overlay or name: made[name] for name in made}
    wanted: dict[str, bytes] = {}
    modes: dict[str, str] = {}
    targets = dict(lock.targets)
    for name, target in manifest.targets.items():
        series, new_files = loaded[name]
        series = made[name].series if name in made else series
        if (home := target.overlay or name) in shared:
            new_files = shared[home].new_files
        if (series, new_files) == loaded[name]:
            continue
        known = lock.targets[name]
        tree, _ = fetched(root, target, known)
        parts = (series, new_files)
        try:
            targets[name] = lock_base(root, target, tree, known.dist, parts, known)
        except InputError as error:
            raise _unlockable(name, error) from error
        folder = series_folder(Path(), name).as_posix()
        wanted |= {f"{folder}/{patch.name}": patch.data for patch in series.patches}
        folder = new_files_folder(Path(), home).as_posix()
        for new in new_files:
            wanted[f"{folder}/{new.path}"] = new.data
            modes[f"{folder}/{new.path}"] = new.mode
    wanted[LOCK] = encode_lock(new_lock((root / MANIFEST).read_bytes(), targets))
    now = DirectoryTree(root)
    return tuple(
        FileChange(path, modes.get(path, "100644"), before, data)
        for path, data in wanted.items()
        if (before := now.read(path)) != data
    )


def _unlockable(name: str, error: InputError) -> CannotApply:
    step = "undo a part of it, or edit the patch file and run make lock"
    findings = error.findings or (Finding(error.message, next_step=step),)
    return CannotApply(f"{name}: the result cannot be locked", findings)
