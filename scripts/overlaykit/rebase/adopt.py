"""Checks a rebased series and adds it to the overlay as a new base."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import msgspec

from overlaykit.applying.transaction import hold
from overlaykit.core.documents import to_json
from overlaykit.core.errors import CannotApply, Finding, InputError
from overlaykit.planning.plan import FileChange, Plan, Standing, State, plan_apply
from overlaykit.rebase.bases import NewBase
from overlaykit.rebase.compute import Rebased
from overlaykit.series.carried import Carried, load_parts, series_folder
from overlaykit.series.lock import (
    LOCK,
    LockedTarget,
    encode_lock,
    load_lock,
    new_lock,
)
from overlaykit.series.manifest import MANIFEST, Target, parse_manifest
from overlaykit.series.quilt import SERIES, Series
from overlaykit.series.tables import with_table
from overlaykit.sources.pinning import lock_base
from overlaykit.trees.tree import DirectoryTree


def lock_rebased(
    root: Path, name: str, carried: Carried, base: NewBase, done: Rebased
) -> tuple[Carried, Plan]:
    """The new base, locked, and the plan for applying it to its own files.

    Raises InputError if the lock refuses a patch, and CannotApply if the series does
    not apply cleanly or gives other contents than computed.
    """
    parts = (done.series, carried.new_files)
    lock = lock_base(root, base.target, base.tree, base.dist, parts, None)
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
        "commit": target.commit,
        "tag": target.tag,
        "package": target.package,
        "package_root": target.package_root,
        "overlay": target.overlay,
    }
    rows = [f"{k} = {json.dumps(v)}" for k, v in fields.items() if v is not None]
    if target.dist is not None:
        dist = msgspec.to_builtins(target.dist)
        pairs = (f"{k} = {json.dumps(v)}" for k, v in dist.items() if v is not None)
        rows.append(f"dist = {{ {', '.join(pairs)} }}")
    head = [f'[targets."{name}"]', f"# Carried over from {start} by scripts/rebase.py."]
    return "\n".join([*head, *rows]) + "\n"


def series_files(series: Series) -> dict[str, bytes]:
    """The files of a series, by name in its folder."""
    files = {patch.name: patch.data for patch in series.patches}
    return {**files, SERIES: "".join(f"{n}\n" for n in files).encode()}


def result_files(made: Carried, start: str) -> dict[str, bytes]:
    """The files of a finished rebase, by name in its folder: the patches, the table of
    overlay.toml and the part of the lock."""
    files = {f"patches/{n}": data for n, data in series_files(made.series).items()}
    files["target.toml"] = target_table(made.name, made.target, start).encode()
    files["target.lock"] = to_json(made.lock, sort=True) + b"\n"
    return files


def in_place_of(root: Path, made: Carried, name: str) -> Carried:
    """The new base under the name of one that it replaces.

    Raises InputError if that is not a base of the same package, or if its new files are
    not those of the new base.
    """
    manifest, parts = load_parts(root)
    old = manifest.targets.get(name)
    if old is None or old.package != made.target.package:
        bases = ", ".join(manifest.bases(made.target.package))
        finding = Finding(
            "is not a base of this package", found=name, expected=f"one of {bases}",
            next_step="name one of them, or leave --replace out",
        )  # fmt: skip
        raise InputError(f"{name} is not a base of {made.target.package}", (finding,))
    shares = made.target.overlay if made.target.overlay != name else None
    target = msgspec.structs.replace(made.target, overlay=shares)
    if shares is None and parts[name][1] != made.new_files:
        step = f"adopt it without --replace, then run scripts/rebase.py --drop {name}"
        finding = Finding("has other new files", path=f"overlay/{name}", next_step=step)
        raise InputError(f"{name} cannot be replaced", (finding,))
    return replace(made, name=name, target=target)


def adoption(
    root: Path, made: Carried, start: str, replacing: bool = False
) -> tuple[FileChange, ...]:
    """The file changes that add the new base to the overlay; empty if it is there.

    Appends to the manifest, or with ``replacing`` writes one table of it again. Raises
    InputError if another base has the name.
    """
    manifest = (root / MANIFEST).read_bytes()
    known = parse_manifest(manifest).targets.get(made.name)
    if replacing:
        table = target_table(made.name, made.target, start)
        manifest = with_table(manifest, made.name, table, made.target)
        known = None
    elif known is None:
        table = target_table(made.name, made.target, start)
        manifest = manifest.rstrip(b"\n") + b"\n\n" + table.encode()
        parse_manifest(manifest)
    elif (known.dist, known.commit) != (made.target.dist, made.target.commit):
        step = "remove that target, or rename it"
        finding = Finding(
            f"{made.name} is another base",
            path=MANIFEST,
            expected=made.target.release,
            found=known.release,
            next_step=step,
        )
        raise InputError(f"{MANIFEST} already has a target {made.name}", (finding,))
    locked = load_lock(root).targets
    lock = made.lock
    if known is not None and made.name in locked:
        commit = lock.commit or locked[made.name].commit
        lock = msgspec.structs.replace(lock, commit=commit, tag=known.tag)
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


def adopt(
    root: Path, made: Carried, start: str, replaced: str | None = None
) -> tuple[FileChange, ...]:
    """Add the new base to the overlay, or put it in the place of the base ``replaced``,
    all or nothing; returns the changes."""
    if replaced is not None:
        made = in_place_of(root, made, replaced)
    done = f"the base {made.name} is adopted"
    with hold(DirectoryTree(root), done) as transaction:
        changes = adoption(root, made, start, replaced is not None)
        if changes:
            transaction.stage(changes)
            transaction.swap()
            transaction.finish()
    return changes
