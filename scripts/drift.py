#!/usr/bin/env python3
"""Show which patches still apply upstream, version by version, and what to do."""

from __future__ import annotations

import shutil
import sys
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from overlaykit.cli import ROOT, Countdown, Report, Result, Verb, run
from overlaykit.core.errors import Exit, Finding, InputError
from overlaykit.core.files import check_place, write_whole
from overlaykit.core.options import whole_number
from overlaykit.core.wording import pasteable
from overlaykit.series.carried import Carried, load_overlay, target_named
from overlaykit.series.ledger import LEDGER
from upstream import first_bad, matrix, selection
from upstream.advice import Advice, advise, headline
from upstream.analysis import Analysis, Stopped
from upstream.cells import columns
from upstream.clone import Clone, open_clone
from upstream.facts import QUOTED, Facts
from upstream.first_bad import Difference
from upstream.outcomes import Column
from upstream.selection import Selection


class VersionResult(Result, frozen=True, kw_only=True):
    """One version; ``outcome`` is the advice in one line."""

    column: Column
    advice: tuple[Advice, ...]


class SearchResult(Result, frozen=True, kw_only=True):
    """What ``--first-bad`` found."""

    change: Difference


def options(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--target", metavar="NAME", default="sglang", help="a target of overlay.toml "
        "(default sglang)",
    )  # fmt: skip
    parser.add_argument(
        "--release", metavar="VERSION", action="append", default=[],
        help="only this release; repeatable (default without --clone: every release in "
        f"{LEDGER}, and newer ones on the package index)",
    )  # fmt: skip
    parser.add_argument(
        "--recorded", action="store_true",
        help=f"only the releases in {LEDGER}; does not ask the package index",
    )  # fmt: skip
    parser.add_argument(
        "--clone", metavar="PATH", type=Path,
        help="a clone of upstream, for --ref and --range; it is only read, and nothing "
        "is checked out",
    )  # fmt: skip
    parser.add_argument(
        "--ref", metavar="REF", nargs="+", action="extend", default=[],
        help="commits of the clone, oldest first; shown after any --release",
    )  # fmt: skip
    parser.add_argument(
        "--range", metavar="A..B", type=_range,
        help="A, and the first-parent commits up to B that touch a file of the series "
        "or of its sites; if A is on a branch, also the commit where B's line starts "
        "(their merge base). The text and --markdown leave out the commits at which "
        "nothing changes",
    )  # fmt: skip
    parser.add_argument(
        "--first-bad", metavar="PATCH|SITE",
        help="instead of a matrix, bisect the --range: print the commit after which "
        "the patch is no longer clean or offset, or the site is in another state; "
        "reports one commit if several changed it",
    )  # fmt: skip
    parser.add_argument(
        "--markdown", metavar="FILE", type=Path, help="also write the matrix to FILE"
    )
    parser.add_argument(
        "--html", metavar="FILE", type=Path, help="also write a heat map to "
        "FILE; its cells open their evidence (needs pip install --group maintain)",
    )  # fmt: skip
    parser.add_argument(
        "--quote", metavar="LINES", type=whole_number(0), default=QUOTED,
        help="at most this many lines of upstream's code in each cell of --html and "
        f"--json (default {QUOTED})",
    )  # fmt: skip


def drift(arguments: Namespace) -> Report:
    """Make the matrix, or bisect a range."""
    carried = target_named(load_overlay(ROOT), arguments.target)
    _check(arguments)
    check_place(arguments.markdown, arguments.html)
    clone = open_clone(arguments.clone, carried) if arguments.clone else None
    progress = _silent if arguments.first_bad else Countdown()
    with Analysis(ROOT, carried, progress) as analysis:
        if arguments.first_bad:
            assert clone is not None
            return _search(clone, analysis, arguments)
        return _matrix(carried, clone, analysis, arguments)


def _silent(*_: object) -> None:
    """Show no progress where each version is named."""


def _matrix(
    carried: Carried, clone: Clone | None, analysis: Analysis, arguments: Namespace
) -> Report:
    selected = _select(carried, clone, analysis, arguments)
    try:
        found = analysis.facts(selected.sources)
    except Stopped as stopped:
        return _so_far(carried, selected, stopped, arguments)
    shown, advice = _shown(carried, selected, found, arguments)
    _write_pages(shown, advice, carried, arguments)
    return _report(carried, shown, advice, selected.note)


def _shown(
    carried: Carried,
    selected: Selection,
    facts: Sequence[Facts],
    arguments: Namespace,
) -> tuple[list[Column], list[tuple[Advice, ...]]]:
    """The columns of the matrix, and what to do."""
    versions = (source.version for source in selected.sources)
    made = columns(carried, zip(versions, facts, strict=True))
    shown = [
        column.capped(arguments.quote)
        for source, column in zip(selected.sources, made, strict=True)
        if source in selected.shown
    ]
    return shown, [advise(column) for column in shown]


def _so_far(
    carried: Carried, selected: Selection, stopped: Stopped, arguments: Namespace
) -> Report:
    """The versions whose facts are known. Pages are not written: they would look as if
    they were complete."""
    known = [s for s in selected.sources if s.version.identity in stopped.found]
    facts = [stopped.found[source.version.identity] for source in known]
    part = replace(selected, sources=tuple(known))
    shown, advice = _shown(carried, part, facts, arguments)
    message = (
        f"interrupted: {len(known)} of {len(selected.sources)} versions are known and "
        "kept for the next run; whether a version reverts a change is only certain "
        "once all before it are known"
    )
    return _report(carried, shown, advice, message, Exit.INTERRUPTED)


def _report(
    carried: Carried,
    shown: Sequence[Column],
    advice: Sequence[tuple[Advice, ...]],
    message: str,
    exit_code: Exit = Exit.DONE,
) -> Report:
    return Report(
        verb="drift",
        exit_code=exit_code,
        message=message,
        results=tuple(
            VersionResult(
                target=carried.name,
                tree=column.version.name,
                outcome=headline(todo),
                column=column,
                advice=todo,
            )
            for column, todo in zip(shown, advice, strict=True)
        ),
    )


def _check(arguments: Namespace) -> None:
    """Refuse options that would have no effect."""
    wrong = ""
    if arguments.clone and not (arguments.ref or arguments.range):
        wrong = "--clone needs --ref or --range"
    elif (arguments.ref or arguments.range) and not arguments.clone:
        wrong = "--ref and --range need --clone"
    elif arguments.ref and arguments.range:
        wrong = "give --ref or --range, not both"
    elif arguments.first_bad and not arguments.range:
        wrong = "--first-bad needs --clone and --range"
    elif arguments.first_bad and (
        arguments.release or arguments.markdown or arguments.html
    ):
        wrong = "--first-bad makes no matrix: remove --release, --markdown and --html"
    elif arguments.recorded and (arguments.release or arguments.clone):
        wrong = "--recorded cannot be combined with --release or --clone"
    if wrong:
        step = "see scripts/drift.py --help"
        raise InputError(wrong, (Finding(wrong, next_step=step),))


def _select(
    carried: Carried, clone: Clone | None, analysis: Analysis, arguments: Namespace
) -> Selection:
    """The versions that the options name."""
    if arguments.release:
        releases = selection.named_releases(ROOT, carried, arguments.release)
    elif clone is not None:
        releases = Selection.of([])
    elif arguments.recorded:
        releases = selection.recorded_releases(ROOT, carried)
    else:
        releases = selection.all_releases(ROOT, carried)
    if clone is None:
        return releases
    if arguments.range:
        first, last = arguments.range
        return releases + selection.commit_range(clone, first, last, analysis.facts)
    return releases + selection.commits(clone, arguments.ref)


def _search(clone: Clone, analysis: Analysis, arguments: Namespace) -> Report:
    row = first_bad.row_named(clone.carried, arguments.first_bad)
    number = 0

    def look(commit: str, run: bool) -> Facts:
        nonlocal number
        number += 1
        what = "analyzing and running" if run else "analyzing"
        print(f"{what} {commit[:10]} ({number})", file=sys.stderr, flush=True)
        source = clone.source(commit)
        if not run:
            return analysis.without_running(source)
        [facts] = analysis.facts([source])
        return facts

    first, last = arguments.range
    change = first_bad.first_bad(clone, row, first, last, look)
    outcome = change.commit or "nothing changes"
    result = SearchResult(
        target=clone.carried.name, tree=str(clone.path), outcome=outcome, change=change
    )
    return Report(verb="drift", results=(result,))


def _write_pages(
    found: Sequence[Column],
    advice: Sequence[tuple[Advice, ...]],
    carried: Carried,
    arguments: Namespace,
) -> None:
    command = pasteable(["scripts/drift.py", *sys.argv[1:]])
    if arguments.markdown:
        text = matrix.markdown(*matrix.folded(found, advice), command)
        write_whole(arguments.markdown, text)
    if arguments.html:
        from upstream.page import html

        title = f"The series for {carried.target.release}, version by version"
        write_whole(arguments.html, html(found, advice, title, command))


def _range(value: str) -> tuple[str, str]:
    first, dots, last = value.partition("..")
    if not (first and dots and last) or last.startswith("."):
        raise ArgumentTypeError(f"{value!r} is not A..B")
    return first, last


def show(report: Report) -> str:
    """The report as a person reads it."""
    found = [result for result in report.results if isinstance(result, VersionResult)]
    if found:
        width = shutil.get_terminal_size((100, 24)).columns
        kept = matrix.folded([o.column for o in found], [o.advice for o in found])
        return matrix.text(*kept, width)
    return "\n".join(
        first_bad.text(result.change)
        for result in report.results
        if isinstance(result, SearchResult)
    )


if __name__ == "__main__":
    run(
        Verb(
            "Show which patches still apply upstream, version by version, which "
            "changes upstream has adopted, reverted or moved, and what to do. "
            "Exit code 0 means that the matrix is complete, even if nothing applies.",
            (
                "scripts/drift.py",
                "scripts/drift.py --release 0.5.12.post1 --release 0.5.13",
                "scripts/drift.py --clone ~/src/sglang --ref v0.5.13 origin/main",
                "scripts/drift.py --clone ~/src/sglang --range v0.5.12..origin/main "
                "--html drift.html",
                "scripts/drift.py --clone ~/src/sglang --range v0.5.12..v0.5.13 "
                "--first-bad S3",
            ),
            options,
            drift,
            show,
        )
    )
