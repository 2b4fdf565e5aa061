#!/usr/bin/env python3
"""Carry the series to upstream's main, prove it, and report it on the forge."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path

from overlaykit.cli import ROOT, Report, Result, Verb, run
from overlaykit.core.errors import Exit
from upstream.nightly.forge import Forge
from upstream.nightly.night import Check, Night, Outcome, Wanted, night
from upstream.nightly.texts import body, summary


class NightResult(Result, frozen=True, kw_only=True):
    """The result of a night; ``tree`` is upstream's commit."""

    start: str
    checks: tuple[Check, ...] = ()
    published: str = ""


def options(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--clone", metavar="PATH", type=Path, required=True,
        help="a clone of upstream with its whole history; it is only read",
    )  # fmt: skip
    parser.add_argument(
        "--onto", metavar="REF", default="origin/main",
        help="the commit, branch or tag there (default: origin/main)",
    )  # fmt: skip
    parser.add_argument(
        "--target", metavar="NAME", default="sglang",
        help="a base of the package (default: sglang); the new base is PACKAGE-main",
    )  # fmt: skip
    parser.add_argument(
        "--from", dest="start", metavar="NAME",
        help="the base whose series is carried (default: PACKAGE-main if there is one, "
        "else the base that is nearest in the history)",
    )  # fmt: skip
    parser.add_argument(
        "--aiter-clone", metavar="PATH", type=Path,
        help="take AITER from this clone instead of its repository; which AITER is "
        "said by upstream's image recipe at that commit, else it is the pinned one",
    )  # fmt: skip
    parser.add_argument(
        "--out", metavar="DIR", type=Path, default=ROOT / "build" / "nightly",
        help="where it works (default: build/nightly)",
    )  # fmt: skip
    parser.add_argument(
        "--publish", action="store_true",
        help="push the branch nightly/NAME to origin and open or update the pull "
        "request; or open or update the issue; needs git's credentials and gh",
    )  # fmt: skip
    parser.add_argument(
        "--dry-run", action="store_true",
        help="with --publish: ask the forge, but push, open and change nothing",
    )  # fmt: skip


def nightly(arguments: Namespace) -> Report:
    """Do the night's work; a conflict is a result, not an error."""
    a = arguments
    wanted = Wanted(
        ROOT, a.clone, a.onto, a.target, a.out, a.start, a.aiter_clone
    )  # fmt: skip
    published = ""
    with night(wanted, _say) as (found, tree):
        if a.publish:
            published = Forge(tree, a.out, _say, a.dry_run).publish(found)
    return Report(
        verb="nightly",
        exit_code=Exit.FAILS if found.outcome is Outcome.STOPPED else Exit.DONE,
        message=_message(found, published),
        dry_run=a.dry_run,
        results=(_result(found, published),),
        findings=found.findings,
    )


def _say(line: str) -> None:
    print(f"== {line}", file=sys.stderr, flush=True)


def _message(found: Night, published: str) -> str:
    return "; ".join(filter(None, (summary(found), published)))


def _result(found: Night, published: str) -> NightResult:
    return NightResult(
        target=found.name,
        tree=found.commit,
        outcome=found.outcome.value,
        changed=found.changed,
        notes=(body(found),) if found.checks else (),
        start=found.start,
        checks=found.checks,
        published=published,
    )


def show(report: Report) -> str:
    """The report as text."""
    return "\n".join(note for result in report.results for note in result.notes)


if __name__ == "__main__":
    run(
        Verb(
            "Carry the series to upstream's main, prove it, and report it. Exit code 1 "
            "means that it does not carry; the report says where it stopped.",
            (
                "scripts/nightly.py --clone ~/src/sglang",
                "scripts/nightly.py --clone ~/src/sglang --aiter-clone ~/src/aiter "
                "--publish --dry-run",
            ),
            options,
            nightly,
            show,
        )
    )
