#!/usr/bin/env python3
"""Put the edits of an applied tree back into the patches and overlay/."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from contextlib import nullcontext
from pathlib import Path

from overlaykit.applying.targets import FoundTarget
from overlaykit.applying.transaction import hold, refuse_interrupted
from overlaykit.cli import ROOT, Report, Result, Verb, run, table
from overlaykit.planning.plan import FileChange
from overlaykit.refresh.base import find_base
from overlaykit.refresh.compute import FindSites, PlacedEdit, Refreshed, refresh
from overlaykit.refresh.edits import find_edits
from overlaykit.refresh.relocking import Parts, overlay_changes
from overlaykit.series.carried import load_overlay
from overlaykit.sources.bases import fetch_base
from overlaykit.trees.tree import DirectoryTree
from xscale.census import kept_census
from xscale.sites import UNKNOWN_SITE


class RefreshResult(Result, frozen=True, omit_defaults=True):
    """One refreshed tree; ``changed`` names files of this overlay."""

    edits: tuple[PlacedEdit, ...] = ()


def options(parser: ArgumentParser) -> None:
    parser.add_argument(
        "path",
        metavar="PATH",
        type=Path,
        help="the edited tree: a clone, an unpacked source tree, a site-packages or an "
        "installed package's directory; recognized by content",
    )
    parser.add_argument(
        "--into",
        metavar="PATCH",
        help="the patch for edits whose owner is unclear; other edits still go into "
        "the patch that owns them",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="plan and report, write nothing"
    )


def put_back(arguments: Namespace) -> Report:
    """Put the edits back into the overlay: all of them, or none."""
    overlay = DirectoryTree(ROOT)
    done = "the edits are in the patches"
    with nullcontext() if arguments.dry_run else hold(overlay, done) as transaction:
        bases = load_overlay(ROOT)
        found = find_base(ROOT, arguments.path, bases)
        new, notes = _refreshed(found, arguments.into)
        made = {found.carried.name: Parts(new.series, new.new_files)}
        changes = overlay_changes(ROOT, made)
        if transaction is not None and changes:
            transaction.stage(changes)
            transaction.swap()
            transaction.finish()
        repaired = transaction is not None and transaction.repaired
    if repaired:
        notes += ("undid an interrupted refresh first",)
    result = _result(found, new, notes, changes, arguments.dry_run)
    return Report(verb="refresh", dry_run=arguments.dry_run, results=(result,))


def _refreshed(
    found: FoundTarget, into: str | None
) -> tuple[Refreshed, tuple[str, ...]]:
    carried, tree = found.carried, found.tree
    refuse_interrupted(tree)
    release = fetch_base(ROOT, carried)
    edits = find_edits(carried, tree, release)
    notes = tuple(f"left alone: {one}" for one in edits.left_alone)
    return refresh(carried, edits, release, into, _sites(found)), notes


def _sites(found: FoundTarget) -> FindSites:
    """Finds sites with the census, which runs only if a patch gets a new scope."""

    def sites(path: str, scope: str) -> tuple[str, ...]:
        within = f"{found.carried.target.package_root}/"
        rows = kept_census(found.tree, within=within).rows
        return tuple(
            row.site
            for row in rows
            if (row.path, row.scope) == (path, scope) and row.site != UNKNOWN_SITE
        )

    return sites


def _result(
    found: FoundTarget,
    new: Refreshed,
    notes: tuple[str, ...],
    changes: tuple[FileChange, ...],
    dry_run: bool,
) -> RefreshResult:
    outcome = "would be refreshed" if dry_run else "refreshed"
    return RefreshResult(
        found.carried.name,
        found.tree.name,
        outcome if changes else "nothing to do",
        changed=tuple(change.path for change in changes),
        notes=notes,
        edits=new.placed,
    )


def show(report: Report) -> str:
    """The report as text."""
    blocks = []
    for result in report.results:
        assert isinstance(result, RefreshResult)
        lines = [f"{result.target}: {result.outcome}  ({result.tree})"]
        if result.edits:
            rows = (
                (
                    f"{edit.path.rpartition('/')[2]}:{edit.line}",
                    edit.scope,
                    f"-{edit.removed} +{edit.added}",
                    edit.patch,
                )
                for edit in result.edits
            )
            lines.append(table(("EDIT", "SCOPE", "LINES", "PATCH"), rows))
        changed = "to change" if report.dry_run else "changed"
        lines += [f"  {changed}  {path}" for path in result.changed]
        lines += [f"  {note}" for note in result.notes]
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)


if __name__ == "__main__":
    run(
        Verb(
            "Put the edits of an applied tree back into the patches that own their "
            "scopes, and into overlay/, and write overlay.lock again. All of it or "
            "nothing.",
            (
                "scripts/refresh.py ~/src/sglang",
                "scripts/refresh.py --dry-run ~/src/sglang",
                "scripts/refresh.py --into 0001-fp8-consumer.patch ~/src/sglang",
            ),
            options,
            put_back,
            show,
            reports_effects=True,
        )
    )
