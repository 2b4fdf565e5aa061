#!/usr/bin/env python3
"""Fetch the pinned bases, or other releases and commits, and lay them out as clones."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from overlaykit.cli import ROOT, Report, Result, Verb, progress, run
from overlaykit.core.gitnames import check_commit
from overlaykit.series.carried import Carried, load_overlay, target_named
from overlaykit.series.ledger import LEDGER, ledger
from overlaykit.series.manifest import Target
from overlaykit.sources import commits, laying, releases
from overlaykit.sources.bases import fetched, lay_out
from overlaykit.sources.commits import Fetched
from overlaykit.sources.packages import cache_folder, wheel_tree


def options(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--release",
        metavar="VERSION",
        action="append",
        default=[],
        help="fetch this release instead of the pinned bases, and lay it out at "
        "build/TARGET-VERSION; may be repeated",
    )
    parser.add_argument(
        "--commit",
        metavar="ID",
        action="append",
        default=[],
        help="the same for a commit of the target's repository: the full id",
    )
    parser.add_argument(
        "--clone",
        metavar="PATH",
        action="append",
        type=Path,
        default=[],
        help="take commits from this clone if it has them, instead of the repository; "
        "may be repeated",
    )
    parser.add_argument(
        "--ladder",
        action="store_true",
        help=f"fetch, but do not lay out, every release from the oldest in {LEDGER} "
        "to the newest on the index, and record each",
    )
    parser.add_argument(
        "--target",
        metavar="NAME",
        default="sglang",
        help="the target of --release, --commit and --ladder (default sglang)",
    )
    parser.add_argument(
        "--out",
        metavar="DIR",
        type=Path,
        default=ROOT / "build",
        help="lay out below this folder (default build)",
    )


def fetch(arguments: Namespace) -> Report:
    """Fetch what was asked for, or without an option the bases in overlay.lock."""
    a = arguments
    overlay = load_overlay(ROOT)
    if not (a.release or a.commit or a.ladder):
        results = list(_pinned(overlay, a.out, a.clone))
        return Report(verb="fetch", results=tuple(results))
    carried = target_named(overlay, a.target)
    target = carried.releases
    results = [_release(a.target, target, version, a.out) for version in a.release]
    results += [_commit(a.target, target, one, a.out, a.clone) for one in a.commit]
    if a.ladder:
        results += _ladder(a.target, target)
    return Report(verb="fetch", results=tuple(results))


def _pinned(
    overlay: Mapping[str, Carried], out: Path, clones: Sequence[Path]
) -> Iterator[Result]:
    for name, carried in overlay.items():
        tree, brought = fetched(ROOT, carried.target, carried.lock, clones)
        folder = out / name
        laid = lay_out(carried, tree, folder, progress)
        yield Result(name, str(folder), _outcome(laid), notes=_brought(brought))


def _release(name: str, target: Target, version: str, out: Path) -> Result:
    wheel = releases.obtain(ROOT, target, version)
    recorded = ledger(ROOT).releases[target.package_dist.name][version]
    folder = out / f"{name}-{version}"
    target = releases.released(target, version)
    label = laying.release_label(target, recorded)
    laid = laying.lay_out(wheel_tree(wheel, target), label, folder, progress)
    return Result(name, str(folder), _outcome(laid))


def _commit(
    name: str, target: Target, commit: str, out: Path, clones: Sequence[Path]
) -> Result:
    check_commit(commit)
    tree, brought = commits.obtain(ROOT, target, commit, clones)
    folder = out / f"{name}-{commit[:12]}"
    label = laying.commit_label(target, commit)
    laid = laying.lay_out(tree, label, folder, progress)
    return Result(name, str(folder), _outcome(laid), notes=_brought(brought))


def _brought(brought: Fetched | None) -> tuple[str, ...]:
    return (f"fetched {brought}",) if brought is not None else ()


def _ladder(name: str, target: Target) -> Iterator[Result]:
    name_on_index = target.package_dist.name
    met = {release.version for release in releases.known(ROOT, name_on_index)}
    for release in releases.ladder(ROOT, target, progress):
        wheel = cache_folder(ROOT) / release.dist.filename
        outcome = "as recorded" if release.version in met else "recorded"
        yield Result(name, str(wheel), outcome)


def _outcome(new: bool) -> str:
    return "laid out" if new else "already laid out"


def show(report: Report) -> str:
    """The report as text."""
    return "\n".join(
        line
        for r in report.results
        for line in (
            f"{r.target}: {r.outcome} at {r.tree}",
            *(f"  {n}" for n in r.notes),
        )
    )


if __name__ == "__main__":
    run(
        Verb(
            "Fetch the bases in overlay.lock, or the given releases and commits, and "
            "lay them out under build/ as clones.",
            (
                "scripts/fetch.py",
                "scripts/fetch.py --release 0.5.12.post1 --release 0.5.13",
                "scripts/fetch.py --clone ~/src/sglang",
                "scripts/fetch.py --ladder",
            ),
            options,
            fetch,
            show,
        )
    )
