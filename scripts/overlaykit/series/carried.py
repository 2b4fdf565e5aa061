"""An overlay as loaded: manifest, lock, series and new files that agree."""

from __future__ import annotations

from collections.abc import Iterator
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
)
from overlaykit.series.lock import stale as stale_parts
from overlaykit.series.manifest import Manifest, Target, load_manifest
from overlaykit.series.quilt import NewFile, Series, load_new_files, load_series
from overlaykit.trees.locking import FOLDER, JOURNAL


@dataclass(frozen=True)
class Carried:
    """What is carried onto one target, by which overlay."""

    overlay: str
    name: str
    target: Target
    series: Series
    new_files: tuple[NewFile, ...]
    lock: LockedTarget

    def locked(self, path: str) -> Iterator[tuple[LockedPatch, LockedFile]]:
        """What the lock says of one touched file, patch by patch."""
        return iter(self._locked.get(path, ()))

    @cached_property
    def _locked(self) -> dict[str, list[tuple[LockedPatch, LockedFile]]]:
        """By path: every file is asked for, and each may be one of thousands."""
        found: dict[str, list[tuple[LockedPatch, LockedFile]]] = {}
        for patch in self.lock.patches:
            for file in patch.files:
                found.setdefault(file.path, []).append((patch, file))
        return found

    @cached_property
    def paths(self) -> tuple[str, ...]:
        """Every file that the overlay answers for: touched ones, then new ones."""
        return (*self.series.paths, *(new.path for new in self.new_files))

    @cached_property
    def modes(self) -> dict[str, str]:
        """The git mode of each of those files."""
        modes = {f.path: f.mode for p in self.lock.patches for f in p.files}
        return modes | {f.path: f.mode for f in self.new_files}

    @property
    def sites(self) -> frozenset[str]:
        """What the patches' headers name; their meaning is the contract's affair."""
        hunks = (h for p in self.lock.patches for f in p.files for h in f.hunks)
        return frozenset(site for hunk in hunks for site in hunk.sites)

    @cached_property
    def chains(self) -> dict[str, tuple[str, ...]]:
        """Per touched file its blob ids: as pinned, then after each of its patches."""
        return {
            path: (steps[0][1].before, *(file.after for _, file in steps))
            for path, steps in self._locked.items()
        }


def series_folder(root: Path, target: str) -> Path:
    """Where an overlay keeps a target's patches."""
    return root / "patches" / target


def new_files_folder(root: Path, target: str) -> Path:
    """Where an overlay keeps a target's new files, unless it shares another's."""
    return root / "overlay" / target


def load_parts(
    root: Path,
) -> tuple[Manifest, dict[str, tuple[Series, tuple[NewFile, ...]]]]:
    """The manifest, and per target its series and new files, without the lock.

    Raises CannotApply where an interrupted verb left the overlay half written.
    """
    if (root / FOLDER / JOURNAL).exists():
        step = "run the interrupted verb again (lock, refresh, rebase): it undoes first"
        finding = Finding("was interrupted, or is under way", FOLDER, next_step=step)
        raise CannotApply(f"{root}: a change of it is unfinished", (finding,))
    manifest = load_manifest(root)
    return manifest, {
        name: (
            load_series(series_folder(root, name)),
            load_new_files(new_files_folder(root, target.overlay or name)),
        )
        for name, target in manifest.targets.items()
    }


def load_overlay(root: Path) -> dict[str, Carried]:
    """An overlay by target. Raises InputError where its parts do not agree."""
    manifest, parts = load_parts(root)
    lock = load_lock(root)
    refuse_disagreement(root, lock)
    overlay = {}
    for name, target in manifest.targets.items():
        series, new_files = parts[name]
        if name not in lock.targets or (
            changed := stale_parts(lock.targets[name], series, new_files)
        ):
            what = changed if name in lock.targets else f"target {name}"
            raise InputError(
                f"{LOCK} is stale",
                (
                    Finding(
                        f"changed since the lock was made: {what}",
                        path=LOCK,
                        next_step="run scripts/lock.py, read the difference, commit it",
                    ),
                ),
            )
        overlay[name] = Carried(
            manifest.name, name, target, series, new_files, lock.targets[name]
        )
    return overlay
