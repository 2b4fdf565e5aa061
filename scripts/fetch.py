#!/usr/bin/env python3
"""Fetch the pinned upstream packages, or other releases, and lay them out as clones."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Mapping
from pathlib import Path

from overlaykit.cli import ROOT, Report, Result, Verb, progress, run
from overlaykit.series.carried import Carried, load_overlay, target_named
from overlaykit.series.ledger import LEDGER, ledger
from overlaykit.series.manifest import Target
from overlaykit.sources import releases
from overlaykit.sources.packages import cache_folder, lay_out, lay_out_wheel
from overlaykit.sources.packages import fetch as fetch_wheel


def options(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--release",
        metavar="VERSION",
        action="append",
        default=[],
        help="fetch this release instead of the pinned packages, and lay it out at "
        "build/TARGET-VERSION; may be repeated",
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
        help="the target of --release and --ladder (default sglang)",
    )
    parser.add_argument(
        "--out",
        metavar="DIR",
        type=Path,
        default=ROOT / "build",
        help="lay out below this folder (default build)",
    )


def fetch(arguments: Namespace) -> Report:
    """Fetch the requested releases, or without an option those in overlay.lock."""
    overlay = load_overlay(ROOT)
    if not (arguments.release or arguments.ladder):
        results = list(_pinned(overlay, arguments.out))
        return Report(verb="fetch", results=tuple(results))
    target = target_named(overlay, arguments.target).target
    results = [
        _release(arguments.target, target, version, arguments.out)
        for version in arguments.release
    ]
    if arguments.ladder:
        results += _ladder(arguments.target, target)
    return Report(verb="fetch", results=tuple(results))


def _pinned(overlay: Mapping[str, Carried], out: Path) -> Iterator[Result]:
    for name, carried in overlay.items():
        wheel = fetch_wheel(ROOT, carried.target, carried.lock.dist)
        folder = out / name
        laid = lay_out(carried, wheel, folder, progress)
        yield Result(name, str(folder), _outcome(laid))


def _release(name: str, target: Target, version: str, out: Path) -> Result:
    wheel = releases.obtain(ROOT, target, version)
    recorded = ledger(ROOT).releases[target.dist.name][version]
    folder = out / f"{name}-{version}"
    target = releases.released(target, version)
    laid = lay_out_wheel(target, recorded, wheel, folder, progress)
    return Result(name, str(folder), _outcome(laid))


def _ladder(name: str, target: Target) -> Iterator[Result]:
    met = {release.version for release in releases.known(ROOT, target.dist.name)}
    for release in releases.ladder(ROOT, target, progress):
        wheel = cache_folder(ROOT) / release.dist.filename
        outcome = "as recorded" if release.version in met else "recorded"
        yield Result(name, str(wheel), outcome)


def _outcome(new: bool) -> str:
    return "laid out" if new else "already laid out"


def show(report: Report) -> str:
    """The report as text."""
    return "\n".join(f"{r.target}: {r.outcome} at {r.tree}" for r in report.results)


if __name__ == "__main__":
    run(
        Verb(
            "Fetch the packages in overlay.lock, or the given releases, and lay them "
            "out under build/ as clones.",
            (
                "scripts/fetch.py",
                "scripts/fetch.py --release 0.5.12.post1 --release 0.5.13",
                "scripts/fetch.py --ladder",
            ),
            options,
            fetch,
            show,
        )
    )
