#!/usr/bin/env python3
"""Fetch the pinned upstream packages and lay them out under build/ as clones."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from overlaykit.carried import load_overlay
from overlaykit.cli import ROOT, Report, Result, Verb, progress, run
from overlaykit.sources import fetch as fetch_wheel
from overlaykit.sources import lay_out


def options(parser: ArgumentParser) -> None:
    """None of its own."""


def fetch(arguments: Namespace) -> Report:
    """Fetch the packages that overlay.lock names and lay them out under build/."""
    results = []
    for name, carried in load_overlay(ROOT).items():
        wheel = fetch_wheel(ROOT, carried.target, carried.lock.dist)
        folder = ROOT / "build" / name
        laid = lay_out(carried, wheel, folder, progress)
        outcome = "laid out" if laid else "already laid out"
        results.append(Result(name, str(folder), outcome))
    return Report(verb="fetch", results=tuple(results))


def show(report: Report) -> str:
    """The report as a person reads it."""
    return "\n".join(f"{r.target}: {r.outcome} at {r.tree}" for r in report.results)


if __name__ == "__main__":
    run(
        Verb(
            "Fetch the packages that overlay.lock names and lay them out under build/ "
            "as clones.",
            ("scripts/fetch.py",),
            options,
            fetch,
            show,
        )
    )
