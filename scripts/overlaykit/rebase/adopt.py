"""Checks a rebased series and adds it to the overlay as a new base."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from overlaykit.applying.transaction import hold
from overlaykit.core.documents import to_json
from overlaykit.core.errors import CannotApply, Finding, InputError
from overlaykit.planning.plan import FileChange, Plan, Standing, State, plan_apply
from overlaykit.rebase.bases import NewBase
from overlaykit.rebase.compute import Rebased
from overlaykit.series.carried import Carried, series_folder
from overlaykit.series.lock import (
    LOCK,
    LockedDist,
    LockedTarget,
    encode_lock,
    load_lock,
    lock_target,
    new_lock,
)
from overlaykit.series.manifest import MANIFEST, Target, parse_manifest
from overlaykit.series.quilt import SERIES, Series
from overlaykit.trees.tree import DirectoryTree, Tree

_NO_RELEASE = LockedDist("", "", 0)


@dataclass(frozen=True)
class _WithModes:
    """A tree with file modes, as the lock needs it."""

    tree: Tree
    modes: Mapping[str, str]

    @property
    def name(self) -> str:
        return self.tree.name

    def read(self, path: str) -> bytes | None:
        return self.tree.read(path)

    def holds(self, path: str) -> bool:
        return self.tree.holds(path)

    def paths(self) -> Iterator[str]:
        return self.tree.paths()

    def mode(self, path: str) -> str:
        return self.modes.get(path, "100644")


def lock_rebased(
    name: str, carried: Carried, base: NewBase, done: Rebased
) -> tuple[Carried, Plan]:
    """The new base, locked, and the plan for applying it to its own release.

    Raises InputError if the lock refuses a patch, and CannotApply if the series does
    not apply cleanly or gives other contents than computed.
    """
    tree = _WithModes(base.tree, base.modes)
    dist = base.dist or _NO_RELEASE
    lock = lock_target(base.target, tree, dist, done.series, carried.new_files, None)
    made = replace(
        carried, name=name, target=base.target, series=done.series, lock=lock
    )
    plan = plan_apply(made, base.tree)
    left = {change.path: change.after for change in plan.changes}
    clean = plan.standing is Standing.PRISTINE and all(
        hunk.state is State.CLEAN for hunk in plan.hunks
    )
    if not clean or any(left.get(path) != data for path, data in done.files.items()):
        raise CannotApply(
            f"{name}: the rebased series does not apply to its own base", plan.findings
        )
    return made, plan


def target_table(name: str, target: Target, start: str) -> str:
    """The target as text to append to overlay.toml."""
    fields = {
        "repository": target.repository,
        "tag": target.tag,
        "package": target.package,
        "package_root": target.package_root,
        "overlay": target.overlay,
    }
    dist = msgspec.to_builtins(target.dist)
    pairs = ", ".join(
        f"{k} = {json.dumps(v)}" for k, v in dist.items() if v is not None
    )
    rows = [f"{k} = {json.dumps(v)}" for k, v in fields.items() if v is not None]
    head = [f'[targets."{name}"]', f"# Carried over from {start} by scripts/rebase.py."]
    return "\n".join([*head, *rows, f"dist = {{ {pairs} }}"]) + "\n"


def series_files(series: Series) -> dict[str, bytes]:
    """The files of a series, by name in its folder."""
    files = {patch.name: patch.data for patch in series.patches}
    return {**files, SERIES: "".join(f"{n}\n" for n in files).encode()}


def result_files(made: Carried, start: str, is_release: bool) -> dict[str, bytes]:
    """The files of a finished rebase, by name in its folder.

    A release also has its table of overlay.toml and its part of the lock.
    """
    files = {f"patches/{n}": data for n, data in series_files(made.series).items()}
    if is_release:
        files["target.toml"] = target_table(made.name, made.target, start).encode()
        files["target.lock"] = to_json(made.lock, sort=True) + b"\n"
    return files


def adoption(root: Path, made: Carried, start: str) -> tuple[FileChange, ...]:
    """The file changes that add the new base to the overlay; empty if it is there.

    Appends to the manifest and never rewrites it. Raises InputError if another release
    has the name.
    """
    manifest = (root / MANIFEST).read_bytes()
    known = parse_manifest(manifest).targets.get(made.name)
    if known is None:
        table = target_table(made.name, made.target, start).encode()
        manifest = manifest.rstrip(b"\n") + b"\n\n" + table
        parse_manifest(manifest)
    elif known.dist != made.target.dist:
        step = "remove that target, or rename it"
        finding = Finding(
            f"{made.name} is another release",
            path=MANIFEST,
            expected=made.target.release,
            found=known.release,
            next_step=step,
        )
        raise InputError(f"{MANIFEST} already has a target {made.name}", (finding,))
    locked = load_lock(root).targets
    commit = locked[made.name].commit if made.name in locked else None
    lock = msgspec.structs.replace(made.lock, commit=commit)
    if known is not None:
        lock = msgspec.structs.replace(lock, tag=known.tag)
    targets: dict[str, LockedTarget] = {**locked, made.name: lock}
    folder = series_folder(Path(), made.name).as_posix()
    wanted: dict[str, bytes | None] = {
        f"{folder}/{path.name}": None
        for path in (root / folder).glob("*")
        if path.is_file()
    }
    wanted |= {f"{folder}/{n}": d for n, d in series_files(made.series).items()}
    # The manifest comes after the patches, which it makes visible; the lock is last.
    wanted[MANIFEST] = manifest
    wanted[LOCK] = encode_lock(new_lock(manifest, targets))
    tree = DirectoryTree(root)
    return tuple(
        FileChange(path, "100644", before, data)
        for path, data in wanted.items()
        if (before := tree.read(path)) != data
    )


def adopt(root: Path, made: Carried, start: str) -> tuple[FileChange, ...]:
    """Add the new base to the overlay, all or nothing; returns the changes."""
    done = f"the base {made.name} is adopted"
    with hold(DirectoryTree(root), done) as transaction:
        changes = adoption(root, made, start)
        if changes:
            transaction.stage(changes)
            transaction.swap()
            transaction.finish()
    return changes
