#!/usr/bin/env python3
"""Write overlay.lock from overlay.toml, patches/ and overlay/; it is never edited."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from overlaykit import clones
from overlaykit.carried import load_parts
from overlaykit.cli import ROOT, Report, Result, Verb, run
from overlaykit.errors import Exit, InputError
from overlaykit.lock import (
    LOCK,
    LockedTarget,
    encode_lock,
    load_lock,
    lock_target,
    new_lock,
    with_commit,
)
from overlaykit.manifest import MANIFEST
from overlaykit.objects import blob_id
from overlaykit.plan import FileChange
from overlaykit.sources import describe, fetch
from overlaykit.transaction import hold
from overlaykit.trees import DirectoryTree, GitTree, WheelTree


def options(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--check", action="store_true", help="only say whether the lock is current"
    )
    parser.add_argument(
        "--clone",
        metavar="PATH",
        action="append",
        type=Path,
        default=[],
        help="an upstream clone: record the commit that the pinned tag names there",
    )


def lock(arguments: Namespace) -> Report:
    """Apply the series to the pinned packages and record every digest."""
    manifest, parts = load_parts(ROOT)
    try:
        known = load_lock(ROOT).targets
    except InputError:
        known = {}
    targets = {}
    for name, target in manifest.targets.items():
        wheel = fetch(ROOT, target, None if name not in known else known[name].dist)
        tree = WheelTree(wheel, target.site_layout())
        commit = known[name].commit if name in known else None
        series, new_files = parts[name]
        made = lock_target(target, tree, describe(wheel), series, new_files, commit)
        for path in arguments.clone:
            made = _with_commit(made, path)
        targets[name] = made
    data = encode_lock(new_lock((ROOT / MANIFEST).read_bytes(), targets))
    path = ROOT / LOCK
    current = path.exists() and path.read_bytes() == data
    if not current and not arguments.check:
        _write(path, data)
    outcome = "current" if current else "stale" if arguments.check else "written"
    results = tuple(
        Result(name, made.dist.filename, outcome) for name, made in targets.items()
    )
    failed = arguments.check and not current
    return Report(
        verb="lock",
        exit_code=Exit.FAILS if failed else Exit.DONE,
        message=f"{LOCK} is {outcome}"
        + ("; run scripts/lock.py and read the difference" if failed else ""),
        results=results,
    )


def _write(path: Path, data: bytes) -> None:
    """Write the lock: whole, or as it was."""
    before = path.read_bytes() if path.exists() else None
    with hold(DirectoryTree(ROOT), f"{LOCK} is written") as transaction:
        transaction.stage([FileChange(LOCK, "100644", before, data)])
        transaction.swap()
        transaction.finish()


def _with_commit(made: LockedTarget, clone: Path) -> LockedTarget:
    """Record the tag's commit if the clone has the tag and the very files we pin."""
    if made.tag is None:
        return made
    ref = f"refs/tags/{made.tag}^{{commit}}"
    found = clones.run(clone, "rev-parse", "--verify", "-q", ref, ok=(0, 1, 128))
    if found.returncode:
        return made
    commit = found.stdout.decode().strip()
    first = {f.path: f.before for p in reversed(made.patches) for f in p.files}
    with GitTree(clone, commit) as tree:
        for path, blob in first.items():
            if blob_id(tree.read(path) or b"") != blob:
                raise InputError(
                    f"{clone}: {made.tag} is {commit}, but {path} there is not the "
                    f"file that {made.dist.filename} holds"
                )
    return with_commit(made, commit)


def show(report: Report) -> str:
    """The report as a person reads it."""
    return "\n".join(f"{r.target}: {r.tree}" for r in report.results)


if __name__ == "__main__":
    run(
        Verb(
            "Write overlay.lock from overlay.toml, patches/ and overlay/: apply the "
            "series to the pinned packages and record every digest.",
            (
                "scripts/lock.py",
                "scripts/lock.py --check",
                "scripts/lock.py --clone ~/src/sglang",
            ),
            options,
            lock,
            show,
            tells=True,
        )
    )
