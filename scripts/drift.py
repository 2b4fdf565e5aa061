#!/usr/bin/env python3
"""What of the series still applies upstream, and what to do, version by version."""

from __future__ import annotations

import shutil
import sys
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from overlaykit.cli import ROOT, Report, Result, Verb, progress, run
from overlaykit.core.errors import EnvironmentFailure, Finding, InputError
from overlaykit.core.files import write_whole
from overlaykit.core.options import whole_number
from overlaykit.core.versions import order
from overlaykit.core.wording import pasteable
from overlaykit.series.carried import Carried, load_overlay
from overlaykit.series.ledger import LEDGER
from overlaykit.sources.releases import listed
from upstream import matrix
from upstream.advice import Advice, advise, headline
from upstream.cells import columns
from upstream.clone import Clone, open_clone, watched
from upstream.facts import Facts
from upstream.first_bad import Change, first_bad, row_named
from upstream.outcomes import Column
from upstream.sources import Source, all_facts, recorded, release_source

_EVERY_LINE = 24


class Outlook(Result, frozen=True, kw_only=True):
    """One version; ``outcome`` is what to do in one line."""

    column: Column
    advice: tuple[Advice, ...]


class Searched(Result, frozen=True, kw_only=True):
    """What ``--first-bad`` found."""

    change: Change


def options(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--target", metavar="NAME", default="sglang", help="whose series: a target of "
        "overlay.toml (default sglang)",
    )  # fmt: skip
    parser.add_argument(
        "--release", metavar="VERSION", action="append", default=[],
        help="only this released version; may be given again (default without --clone: "
        f"every one in {LEDGER} and newer ones on the package index)",
    )  # fmt: skip
    parser.add_argument(
        "--recorded", action="store_true",
        help=f"only the releases in {LEDGER}; asks no index",
    )  # fmt: skip
    parser.add_argument(
        "--clone", metavar="PATH", type=Path,
        help="a clone of upstream, for --ref and --range; only read, nothing is "
        "checked out",
    )  # fmt: skip
    parser.add_argument(
        "--ref", metavar="REF", nargs="+", action="extend", default=[],
        help="commits of the clone, oldest first; they come after any --release",
    )  # fmt: skip
    parser.add_argument(
        "--range", metavar="A..B", type=_range,
        help="A and those first-parent commits up to B that touch the series' files "
        "or its sites'; where A lies on a branch, also the commit from which B's line "
        "starts (their merge base)",
    )  # fmt: skip
    parser.add_argument(
        "--first-bad", metavar="PATCH|SITE",
        help="instead of a matrix: the first commit of the --range after which that "
        "patch is no longer clean or offset, or that site not in the state it was in; "
        "found by halving, so of several changes any one",
    )  # fmt: skip
    parser.add_argument("--markdown", metavar="FILE", type=Path, help="also write it")
    parser.add_argument(
        "--html", metavar="FILE", type=Path, help="also write it: a heat map "
        "whose cells open their evidence (needs pip install --group maintain)",
    )  # fmt: skip
    parser.add_argument(
        "--quote", metavar="LINES", type=whole_number(0), default=_EVERY_LINE,
        help="at most so many lines of upstream's code a cell, in --html and --json "
        f"(default {_EVERY_LINE})",
    )  # fmt: skip


def drift(arguments: Namespace) -> Report:
    """The matrix, or the commit that is searched."""
    overlay = load_overlay(ROOT)
    if arguments.target not in overlay:
        known = ", ".join(overlay)
        raise InputError(f"no target {arguments.target}; overlay.toml has {known}")
    carried = overlay[arguments.target]
    _check(arguments)
    clone = open_clone(arguments.clone, carried) if arguments.clone else None
    if arguments.first_bad:
        assert clone is not None
        return _search(clone, arguments)
    sources, shown, note = _sources(carried, clone, arguments)
    facts = all_facts(ROOT, carried, sources, progress)
    found = zip((source.version for source in sources), facts, strict=True)
    cut = [
        _cut(column, arguments.quote)
        for source, column in zip(sources, columns(carried, found), strict=True)
        if source in shown
    ]
    advice = [advise(column) for column in cut]
    _write_pages(cut, advice, carried, arguments)
    return Report(
        verb="drift",
        message=note,
        results=tuple(
            Outlook(
                target=carried.name,
                tree=column.version.name,
                outcome=headline(todo),
                column=column,
                advice=todo,
            )
            for column, todo in zip(cut, advice, strict=True)
        ),
    )


def _check(arguments: Namespace) -> None:
    """Refuse options that would be left unused."""
    on_clone = bool(arguments.ref or arguments.range)
    wrong = ""
    if on_clone != bool(arguments.clone):
        wrong = "--clone and one of --ref and --range go together"
    elif arguments.ref and arguments.range:
        wrong = "give --ref or --range, not both"
    elif arguments.first_bad and not arguments.range:
        wrong = "--first-bad needs --clone and --range"
    elif arguments.first_bad and (
        arguments.release or arguments.markdown or arguments.html
    ):
        wrong = "--first-bad makes no matrix: leave out --release, --markdown, --html"
    elif arguments.recorded and (arguments.release or arguments.clone):
        wrong = "--recorded is for the whole ladder"
    if wrong:
        step = "see scripts/drift.py --help"
        raise InputError(wrong, (Finding(wrong, next_step=step),))


def _sources(
    carried: Carried, clone: Clone | None, arguments: Namespace
) -> tuple[list[Source], set[Source], str]:
    """The versions, those of them to be shown, and what else is to be said."""
    sources: list[Source] = []
    shown: list[Source] = []
    note = ""
    if arguments.release:
        sources, shown = _chosen(carried, arguments.release)
    elif clone is None:
        sources, note = _ladder(carried, arguments.recorded)
        shown = list(sources)
    if clone is not None:
        more = (
            _of_range(clone, *arguments.range)
            if arguments.range
            else [clone.source(ref) for ref in dict.fromkeys(arguments.ref)]
        )
        sources += more
        shown += more
    return sources, set(shown), note


def _chosen(
    carried: Carried, wanted: Sequence[str]
) -> tuple[list[Source], list[Source]]:
    """The releases asked for and the recorded ones since the pin (whether something
    was reverted, only they tell); and the former alone."""
    pin, newest = order(carried.target.dist.version), max(map(order, wanted))
    between = [r.version for r in recorded(ROOT, carried)
               if pin < order(r.version) < newest]  # fmt: skip
    versions = sorted({*wanted, *between}, key=order)
    sources = [release_source(ROOT, carried, v) for v in versions]
    return sources, [source for source in sources if source.version.name in wanted]


def _ladder(carried: Carried, only_recorded: bool) -> tuple[list[Source], str]:
    """Every recorded release, and the newer ones of the index if it answers."""
    dist = carried.target.dist
    versions = [r.version for r in recorded(ROOT, carried)] or [dist.version]
    with ThreadPoolExecutor(1) as asking:
        answer = None if only_recorded else asking.submit(listed, dist)
        sources = [release_source(ROOT, carried, v) for v in versions]
        if answer is None:
            return sources, f"only the releases in {LEDGER}, as asked"
        try:
            newest = order(versions[-1])
            newer = [v for v in answer.result() if order(v) > newest]
        except EnvironmentFailure as error:
            note = f"only the releases in {LEDGER}: {error.message}"
            return sources, note
    return sources + [release_source(ROOT, carried, v) for v in newer], ""


def _of_range(clone: Clone, first: str, last: str) -> list[Source]:
    """A, as A; where the line of B parts from it, if that is another; the line."""
    line = clone.line(first, last)
    begin = [clone.source(line.first, first)]
    if line.start:
        aside = f"beside the line of {last}, which begins at {line.since[:10]}"
        begin = [
            clone.source(line.first, first, aside, beside=True),
            clone.source(line.since, line.since[:10], line.start),
        ]
    ends = [begin[-1], clone.source(last)]
    facts = all_facts(ROOT, clone.carried, ends, progress)
    commits = clone.touching(first, last, watched(clone.carried, facts))
    return [*begin, *(clone.source(commit, name=commit[:10]) for commit in commits)]


def _search(clone: Clone, arguments: Namespace) -> Report:
    row = row_named(clone.carried, arguments.first_bad)
    looked = 0

    def look(commit: str) -> Facts:
        nonlocal looked
        looked += 1
        print(f"looking at {commit[:10]} ({looked})", file=sys.stderr, flush=True)
        [facts] = all_facts(ROOT, clone.carried, [clone.source(commit)], _silent)
        return facts

    first, last = arguments.range
    change = first_bad(clone, row, first, last, look)
    outcome = change.commit or "nothing changes"
    result = Searched(
        target=clone.carried.name, tree=str(clone.path), outcome=outcome, change=change
    )
    return Report(verb="drift", results=(result,))


def _silent(*_: object) -> None:
    """No progress within a single version."""


def _cut(column: Column, most: int) -> Column:
    """The column with no more of upstream's lines a cell than asked for."""
    patches, sites = (
        tuple(
            replace(cell, quote=cell.quote.capped(most) if cell.quote else None)
            for cell in cells
        )
        for cells in (column.patches, column.sites)
    )
    return replace(column, patches=patches, sites=sites)


def _write_pages(
    found: Sequence[Column],
    advice: Sequence[tuple[Advice, ...]],
    carried: Carried,
    arguments: Namespace,
) -> None:
    command = pasteable(["scripts/drift.py", *sys.argv[1:]])
    if arguments.markdown:
        write_whole(arguments.markdown, matrix.markdown(found, advice, command))
    if arguments.html:
        from upstream.page import html

        dist = carried.target.dist
        title = f"The series for {dist.name} {dist.version}, version by version"
        write_whole(arguments.html, html(found, advice, title, command))


def _range(value: str) -> tuple[str, str]:
    first, dots, last = value.partition("..")
    if not (first and dots and last) or last.startswith("."):
        raise ArgumentTypeError(f"{value!r} is not A..B")
    return first, last


def show(report: Report) -> str:
    """The report as a person reads it."""
    found = [result for result in report.results if isinstance(result, Outlook)]
    if found:
        width = shutil.get_terminal_size((100, 24)).columns
        return matrix.text([o.column for o in found], [o.advice for o in found], width)
    return "\n".join(
        _searched(r.change) for r in report.results if isinstance(r, Searched)
    )


def _searched(change: Change) -> str:
    began = [f"  from    {change.since}: {change.start}"] if change.start else []
    if change.commit is None:
        return "\n".join([f"{change.row} stays as it is: {change.after}", *began])
    lines = [
        f"{change.row} changes with {change.commit}",
        f"  {change.subject}",
        f"  {change.date}",
        *began,
        f"  before  {change.before}  (at its parent {change.parent})",
        f"  after   {change.after}",
        f"  {change.looked_at} commits looked at",
        "",
        *(f"    {line}" for line in change.blame),
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    run(
        Verb(
            "What of the series still applies upstream, what upstream has by now, what "
            "it took back or moved, and what to do, version by version. "
            "Exit code 0 means that the answer was made, whatever it says.",
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
