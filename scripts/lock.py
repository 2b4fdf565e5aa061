#!/usr/bin/env python3
"""Write overlay.lock from overlay.toml, patches/ and overlay/; it is never edited."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from contextlib import ExitStack, nullcontext
from pathlib import Path

from overlaykit.applying.transaction import hold
from overlaykit.cli import ROOT, Report, Result, Verb, run
from overlaykit.core.errors import Exit
from overlaykit.planning.plan import FileChange
from overlaykit.series.carried import load_parts
from overlaykit.series.digests import ACCEPT, recorded
from overlaykit.series.lock import LOCK, base_text, encode_lock, new_lock, read_lock
from overlaykit.series.manifest import MANIFEST
from overlaykit.sources import commits
from overlaykit.sources.packages import describe, downloaded, fetch, keep, wheel_tree
from overlaykit.sources.pinning import lock_base, pinned_commit
from overlaykit.sources.repinning import Repinning
from overlaykit.trees.tree import DirectoryTree


def options(parser: ArgumentParser) -> None:
    either = parser.add_mutually_exclusive_group()
    either.add_argument(
        "--check", action="store_true", help="only report whether the lock is current"
    )
    either.add_argument(
        ACCEPT,
        metavar="VERSION",
        action="append",
        default=[],
        help="pin a new digest for a version that was pinned or recorded before, as "
        "the package index has it now; without this a known digest never changes",
    )
    parser.add_argument(
        "--clone",
        metavar="PATH",
        action="append",
        type=Path,
        default=[],
        help="an upstream clone, read instead of the repository: for a base's commit, "
        "and for the commit of its tag; may be repeated",
    )


def lock(arguments: Namespace) -> Report:
    """Apply the series to the pinned bases and record every digest."""
    root = DirectoryTree(ROOT)
    with ExitStack() as until:
        writer = nullcontext() if arguments.check else hold(root)
        transaction = until.enter_context(writer)
        manifest, parts = load_parts(ROOT)
        known = read_lock(ROOT)
        repinning = Repinning(ROOT, manifest, arguments.accept_new_digest)
        fresh, targets = [], {}
        for name, target in manifest.targets.items():
            old = known.targets.get(name) if known is not None else None
            if target.dist is None:
                commit = pinned_commit(target, old, arguments.clone)
                base, _ = commits.obtain(ROOT, target, commit, arguments.clone)
                targets[name] = lock_base(ROOT, target, base, None, parts[name], old)
                continue
            if target.dist.version in repinning.accepted:
                wheel = until.enter_context(downloaded(ROOT, target))
                fresh.append(wheel)
            else:
                wheel = fetch(ROOT, target, recorded(ROOT, target.dist))
            dist, tree = describe(wheel), wheel_tree(wheel, target)
            repinning.note(target, dist)
            targets[name] = lock_base(
                ROOT, target, tree, dist, parts[name], old, arguments.clone
            )
        findings = repinning.findings()
        data = encode_lock(new_lock((ROOT / MANIFEST).read_bytes(), targets))
        current = root.read(LOCK) == data
        changes = tuple(
            FileChange(path, "100644", before, after)
            for path, after in {**repinning.ledger(), LOCK: data}.items()
            if (before := root.read(path)) != after
        )
        if transaction is not None and changes:
            transaction.stage(changes)
            transaction.swap()
            transaction.finish()
        for wheel in fresh:
            keep(ROOT, wheel)
    outcome = "current" if current else "stale" if arguments.check else "written"
    failed = arguments.check and not current
    return Report(
        verb="lock",
        exit_code=Exit.FAILS if failed else Exit.DONE,
        message=f"{LOCK} is {outcome}"
        + ("; run scripts/lock.py and read the difference" if failed else "")
        + repinning.summary(),
        results=tuple(
            Result(name, base_text(made), outcome) for name, made in targets.items()
        ),
        findings=findings,
    )


def show(report: Report) -> str:
    """The report as text."""
    return "\n".join(f"{r.target}: {r.tree}" for r in report.results)


if __name__ == "__main__":
    run(
        Verb(
            "Write overlay.lock from overlay.toml, patches/ and overlay/: apply the "
            "series to the pinned bases and record every digest.",
            (
                "scripts/lock.py",
                "scripts/lock.py --check",
                "scripts/lock.py --clone ~/src/sglang",
                f"scripts/lock.py {ACCEPT} 0.5.11",
            ),
            options,
            lock,
            show,
            reports_effects=True,
        )
    )
