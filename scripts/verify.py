#!/usr/bin/env python3
"""Is a tree exactly what the series promises? By blob ids, by scope, by the census."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from contract.census import SiteRow, check_adopted, take_census
from overlaykit.bytecode import hidden_by_bytecode
from overlaykit.carried import load_overlay
from overlaykit.cli import (
    ROOT,
    Report,
    Result,
    Verb,
    hunk_table,
    run,
    skipped_lines,
    table,
)
from overlaykit.errors import Exit, Finding
from overlaykit.inspection import inspect
from overlaykit.targets import Found, find_targets
from overlaykit.transaction import refuse_interrupted

# The target whose producers and consumers the contract is about.
_CENSUS_OF = "sglang"


class Verified(Result, frozen=True, kw_only=True):
    """A result with the census; ``digest`` is the tree id of the files answered for."""

    sites: tuple[SiteRow, ...] = ()
    digest: str


def options(parser: ArgumentParser) -> None:
    parser.add_argument(
        "paths",
        metavar="PATH",
        nargs="+",
        type=Path,
        help="what apply.py takes: a clone, an unpacked source tree, a site-packages "
        "or an installed package's directory",
    )


def verify(arguments: Namespace) -> Report:
    """Check every tree in full; a finding does not stop the rest."""
    results, findings = [], []
    for one in find_targets(arguments.paths, load_overlay(ROOT)):
        result, wrong = _verify(one)
        results.append(result)
        findings += wrong
    return Report(
        verb="verify",
        exit_code=Exit.FAILS if findings else Exit.DONE,
        message=f"{len(findings)} findings" if findings else "holds",
        results=tuple(results),
        findings=tuple(findings),
    )


def _verify(one: Found) -> tuple[Verified, list[Finding]]:
    carried, tree = one.carried, one.tree
    refuse_interrupted(tree)
    inspection = inspect(carried, tree)
    findings = [*inspection.findings]
    findings += hidden_by_bytecode(tree, carried.paths)
    sites: tuple[SiteRow, ...] = ()
    if carried.name == _CENSUS_OF:
        # Upstream's own tests and benchmarks may call the kernels as they like.
        census = take_census(tree, within=f"{carried.target.package_root}/")
        sites = census.rows
        findings += check_adopted(census)
    result = Verified(
        target=carried.name,
        tree=tree.name,
        outcome="differs" if findings else "holds",
        hunks=inspection.hunks,
        skipped=inspection.skipped,
        sites=sites,
        digest=inspection.digest,
    )
    return result, findings


def show(report: Report) -> str:
    """The report as a person reads it."""
    blocks = []
    for result in report.results:
        assert isinstance(result, Verified)
        lines = [f"{result.target}: {result.outcome}  ({result.tree})"]
        lines += [f"tree {result.digest}", hunk_table(result.hunks)]
        if result.sites:
            rows = ((s.site, *_where(s), s.state.value) for s in result.sites)
            lines.append(table(("SITE", "FILE", "SCOPE", "STATE"), rows))
        lines += skipped_lines(result)
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)


def _where(row: SiteRow) -> tuple[str, str]:
    file = (row.path or "-").rpartition("/")[2]
    return (f"{file}:{row.line}" if row.line else file, row.scope or "-")


if __name__ == "__main__":
    run(
        Verb(
            "Is a tree exactly what the series promises? First by the blob ids of the "
            "lock, then by scope, then by the census of producers and consumers.",
            (
                "scripts/verify.py ~/src/sglang ~/src/aiter",
                "scripts/verify.py --json /opt/venv/lib/python3.10/site-packages",
            ),
            options,
            verify,
            show,
        )
    )
