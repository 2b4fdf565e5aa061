"""A loaded overlay: manifest, lock, series and new files that agree."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from overlaykit.core.errors import CannotApply, Finding, InputError
from overlaykit.series.digests import refuse_disagreement
from overlaykit.series.lock import (
    LOCK,
    LockedFile,
    LockedPatch,
    LockedTarget,
    load_lock,
    stale_parts,
)
from overlaykit.series.manifest import Manifest, Target, load_manifest
from overlaykit.series.quilt import NewFile, Series, load_new_files, load_series
from overlaykit.trees.locking import FOLDER, JOURNAL


@dataclass(frozen=True)
class Carried:
    """One target of an overlay, with its series, new files and lock.

    ``released`` is the target as its package is released, for a base that is only a
    commit (:meth:`Manifest.as_released`); None means the target itself.
    """

    overlay: str
    name: str
    target: Target
    series: Series
    new_files: tuple[NewFile, ...]
    lock: LockedTarget
    released: Target | None = None

    @property
    def releases(self) -> Target:
        """The target that names the package's releases."""
        return self.released or self.target

    def locked(self, path: str) -> Iterator[tuple[LockedPatch, LockedFile]]:
        """The lock's entries for one touched file, in patch order."""
        return iter(self._locked.get(path, ()))

    @cached_property
    def _locked(self) -> dict[str, list[tuple[LockedPatch, LockedFile]]]:
        """Entries by path: callers look up every file, and there may be thousands."""
        found: dict[str, list[tuple[LockedPatch, LockedFile]]] = {}
        for patch in self.lock.patches:
            for file in patch.files:
                found.setdefault(file.path, []).append((patch, file))
        return found

    @cached_property
    def paths(self) -> tuple[str, ...]:
        """All files of the overlay: touched files first, then new files."""
        return (*self.series.paths, *(new.path for new in self.new_files))

    @cached_property
    def modes(self) -> dict[str, str]:
        """The git mode of each file in :attr:`paths`."""
        modes = {f.path: f.mode for p in self.lock.patches for f in p.files}
        return modes | {f.path: f.mode for f in self.new_files}

    @property
    def sites(self) -> frozenset[str]:
        """The sites in the patch headers. Only the contract knows their meaning."""
        hunks = (h for p in self.lock.patches for f in p.files for h in f.hunks)
        return frozenset(site for hunk in hunks for site in hunk.sites)

    @cached_property
    def chains(self) -> dict[str, tuple[str, ...]]:
        """Blob ids of each touched file: as pinned, then after each of its patches."""
        return {
            path: (steps[0][1].before, *(file.after for _, file in steps))
            for path, steps in self._locked.items()
        }


def series_folder(root: Path, target: str) -> Path:
    """The folder of a target's patches."""
    return root / "patches" / target


def new_files_folder(root: Path, target: str) -> Path:
    """The folder of a target's new files, unless the target shares another's."""
    return root / "overlay" / target


def load_parts(
    root: Path,
) -> tuple[Manifest, dict[str, tuple[Series, tuple[NewFile, ...]]]]:
    """The manifest, and the series and new files of each target, without the lock.

    Raises CannotApply if an interrupted verb left the overlay half written.
    """
    if (root / FOLDER / JOURNAL).exists():
        step = (
            "run the interrupted verb again (lock, refresh or rebase): it undoes first"
        )
        finding = Finding(
            "a verb was interrupted or is still running", FOLDER, next_step=step
        )
        raise CannotApply(f"{root}: a change to the overlay is unfinished", (finding,))
    manifest = load_manifest(root)
    return manifest, {
        name: (
            load_series(series_folder(root, name)),
            load_new_files(new_files_folder(root, target.overlay or name)),
        )
        for name, target in manifest.targets.items()
    }


def load_overlay(root: Path) -> dict[str, Carried]:
    """Load an overlay, by target. Raises InputError if its parts do not agree."""
    manifest, parts = load_parts(root)
    lock = load_lock(root)
    refuse_disagreement(root, lock)
    overlay = {}
    for name, target in manifest.targets.items():
        series, new_files = parts[name]
        if name not in lock.targets or (
            changed := stale_parts(target, lock.targets[name], series, new_files)
        ):
            what = changed if name in lock.targets else f"target {name}"
            raise InputError(
                f"{LOCK} is stale",
                (
                    Finding(
                        f"changed since the lock was made: {what}",
                        path=LOCK,
                        next_step="run scripts/lock.py, review the diff, commit it",
                    ),
                ),
            )
        released = manifest.as_released(name)
        locked = lock.targets[name]
        overlay[name] = Carried(
            manifest.name, name, target, series, new_files, locked, released
        )
    return overlay


def target_named(overlay: Mapping[str, Carried], name: str) -> Carried:
    """Raises InputError if the overlay does not have this target."""
    if name not in overlay:
        known = ", ".join(overlay)
        raise InputError(f"no target {name}; overlay.toml has {known}")
    return overlay[name]
