#!/usr/bin/env python3
"""Check that a tree is exactly what the lock records: blob ids, scopes, the census.

With ``--numeric``, run it: check that every activation scale is right where a GEMM
reads it, with any release of SGLang and AITER.
"""

from __future__ import annotations

import time
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from overlaykit.applying.inspection import inspect
from overlaykit.applying.targets import FoundTarget, find_targets
from overlaykit.applying.transaction import refuse_interrupted
from overlaykit.cli import (
    ROOT,
    Report,
    Result,
    Verb,
    hunk_table,
    progress,
    run,
    skipped_lines,
    table,
)
from overlaykit.core.errors import EnvironmentFailure, Exit, Finding, InputError
from overlaykit.core.objects import blob_id
from overlaykit.core.options import whole_number
from overlaykit.core.wording import pasteable
from overlaykit.planning.plan import UPSTREAMED, Standing
from overlaykit.series.carried import load_overlay
from overlaykit.sources.bases import pinned_base
from overlaykit.trees.bytecode import hidden_by_bytecode
from overlaykit.trees.tree import EditedTree, GitTree, Tree
from upstream.merged import upstream_has_it
from xscale.aiter_tree import aiter_at
from xscale.audit import ALL, Audit, audit, rendered
from xscale.census import SiteRow, check_adopted, kept_census
from xscale.liveness import LiveState, probe
from xscale.numeric import (
    ChainSummary,
    Pool,
    SiteSummary,
    chains_of,
    findings_of,
    full_matrix,
    module_cases,
    reduced_matrix,
    summarize,
)

# The package with the producers and consumers, and the one with the kernels.
_CENSUS_OF = "sglang"
_KERNELS_OF = "aiter"


class VerifyResult(Result, frozen=True, kw_only=True):
    """A result with the census; ``digest`` is the tree id of the overlay's files."""

    sites: tuple[SiteRow, ...] = ()
    digest: str


class NumericResult(Result, frozen=True, kw_only=True):
    """A numeric result. ``base`` is the unpatched tree that the results are compared
    with; None if there is none: then only the kernels' own results are checked."""

    aiter: str
    base: str | None
    ran_with: dict[str, str]
    cases: int
    right: int
    seconds: float
    numeric: tuple[SiteSummary, ...]
    chains: tuple[ChainSummary, ...]
    lives: tuple[LiveState, ...]


class AuditResult(Result, frozen=True, kw_only=True):
    """The result of opening dead guards."""

    aiter: str
    ran_with: dict[str, str]
    audit: Audit


def options(parser: ArgumentParser) -> None:
    parser.add_argument(
        "paths",
        metavar="PATH",
        nargs="+",
        type=Path,
        help="as for apply.py: a clone, an unpacked source tree, a site-packages or an "
        "installed package's directory",
    )
    numeric = parser.add_argument_group(
        "the numeric proof",
        "runs the tree's own functions on AITER's own kernels and checks the bytes of "
        "every scale; works on any release and replaces the comparison with the lock",
    )
    numeric.add_argument("--numeric", action="store_true", help="run it")
    numeric.add_argument(
        "--aiter",
        metavar="PATH",
        type=Path,
        help="the AITER to run if no PATH contains it: a clone, an unpacked source "
        "tree, a site-packages or the package's directory",
    )
    numeric.add_argument(
        "--aiter-ref",
        metavar="REF",
        help="run the AITER of this commit, tag or branch of the clone --aiter, which "
        "may be bare; nothing is checked out",
    )
    numeric.add_argument(
        "--open",
        metavar="GUARD",
        help="instead, open a dead guard in memory and list what then goes wrong, with "
        f"file and line. GUARD is its function or FILE:LINE, as printed; {ALL} opens "
        "all; another name prints those that exist",
    )
    numeric.add_argument(
        "--full",
        action="store_true",
        help="run every case, including the models' shapes: minutes on a GPU, hours "
        "on a CPU",
    )
    numeric.add_argument(
        "--device",
        choices=("cpu", "cuda"),
        default="cpu",
        help="cpu: Triton's interpreter (default); cuda: compiled, also on ROCm",
    )
    numeric.add_argument(
        "--jobs",
        metavar="N",
        type=whole_number(),
        default=1,
        help="run the cases in N processes (default 1)",
    )


def verify(arguments: Namespace) -> Report:
    """Check every tree completely; a finding does not stop the check."""
    if arguments.numeric:
        return _verify_numeric(arguments)
    if (
        arguments.aiter
        or arguments.aiter_ref
        or arguments.open is not None
        or arguments.full
        or arguments.device != "cpu"
    ):
        needs = "--aiter, --aiter-ref, --open, --full and --device need --numeric"
        raise InputError(needs)
    results, findings = [], []
    for one in find_targets(arguments.paths, load_overlay(ROOT)):
        result, wrong = _verify(one)
        results.append(result)
        findings += wrong
    return Report(
        verb="verify",
        exit_code=Exit.FAILS if findings else Exit.DONE,
        message=_summary(findings),
        results=tuple(results),
        findings=tuple(findings),
    )


def _summary(findings: list[Finding]) -> str:
    if not findings:
        return "holds"
    return _count(len(findings), "finding")


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _verify(one: FoundTarget) -> tuple[VerifyResult, list[Finding]]:
    carried, tree = one.carried, one.tree
    refuse_interrupted(tree)
    inspection = inspect(carried, tree)
    if carried.target.package == _KERNELS_OF and (has := upstream_has_it(ROOT, one)):
        result = VerifyResult(
            target=carried.name,
            tree=tree.name,
            outcome=UPSTREAMED,
            notes=(has,),
            digest=inspection.digest,
        )
        return result, []
    findings = [*inspection.findings]
    findings += hidden_by_bytecode(tree, carried.paths)
    sites: tuple[SiteRow, ...] = ()
    if carried.target.package == _CENSUS_OF and carried.sites:
        # Upstream's own tests and benchmarks are not checked.
        census = kept_census(tree, within=f"{carried.target.package_root}/")
        sites = census.rows
        findings += [
            finding
            for finding in check_adopted(census)
            # A call in a file that is not checked out is not gone.
            if finding.path or not inspection.left_out
        ]
    findings += one.mismatch
    outcome = "differs" if findings else "holds"
    if inspection.standing is Standing.PRISTINE:
        # The whole series is missing: one finding with one next step.
        outcome, findings = "not applied", [_not_applied(one)]
    result = VerifyResult(
        target=carried.name,
        tree=tree.name,
        outcome=outcome,
        hunks=inspection.hunks,
        skipped=inspection.skipped,
        sites=sites,
        digest=inspection.digest,
    )
    return result, findings


def _not_applied(one: FoundTarget) -> Finding:
    target = one.carried.target
    return Finding(
        "is not applied",
        path=one.tree.name,
        expected=f"the series of {one.carried.name}",
        found=f"{target.release} as released",
        next_step=pasteable(["scripts/apply.py", one.tree.name]),
    )


def _verify_numeric(arguments: Namespace) -> Report:
    if arguments.open is not None and arguments.full:
        raise InputError("--open has cases of its own: leave out --full")
    trees, kernels = _trees_and_kernels(arguments)
    team = Pool(arguments.device, arguments.jobs)
    for one in trees:
        refuse_interrupted(one.tree)
    if arguments.open is not None:
        return _audit(arguments.open, trees, kernels, team)
    return _prove(arguments.full, trees, kernels, team)


def _trees_and_kernels(arguments: Namespace) -> tuple[list[FoundTarget], Tree]:
    """The SGLang trees, and the AITER whose kernels they run."""
    if arguments.aiter_ref and not arguments.aiter:
        raise InputError("--aiter-ref needs --aiter, which names the clone")
    found = find_targets(arguments.paths, load_overlay(ROOT))
    trees = [one for one in found if one.carried.target.package == _CENSUS_OF]
    kernels: list[Tree] = [
        one.tree for one in found if one.carried.target.package == _KERNELS_OF
    ]
    if arguments.aiter_ref:
        kernels = [GitTree(arguments.aiter, arguments.aiter_ref)]
    elif arguments.aiter:
        kernels = [aiter_at(arguments.aiter)]
    if not trees:
        raise InputError("--numeric needs an SGLang tree among the paths")
    if len(kernels) != 1:
        finding = Finding(
            f"{len(kernels)} AITER trees given",
            expected="one AITER tree, whose kernels SGLang will run",
            next_step="name it with --aiter PATH",
        )
        raise EnvironmentFailure("the numeric proof needs AITER's kernels", (finding,))
    return trees, kernels[0]


def _audit(name: str, trees: list[FoundTarget], kernels: Tree, team: Pool) -> Report:
    results: list[AuditResult] = []
    for one in trees:
        result = audit(
            one.tree, kernels, name, team.run, team.about["device"], progress
        )
        outcome = _count(len(result.faults), "fault")
        if not result.revived:
            outcome += ", and no site is live with it open"
        results.append(
            AuditResult(
                target=one.carried.name,
                tree=one.tree.name,
                outcome=outcome if result.guards else "no guard is dead",
                aiter=kernels.name,
                ran_with=team.about,
                audit=result,
            )
        )
    return Report(
        verb="verify",
        exit_code=Exit.FAILS if any(r.audit.faults for r in results) else Exit.DONE,
        message="; ".join(dict.fromkeys(result.outcome for result in results)),
        results=tuple(results),
    )


def _prove(full: bool, trees: list[FoundTarget], kernels: Tree, team: Pool) -> Report:
    cases = full_matrix() if full else reduced_matrix()
    cases += module_cases()
    results: list[NumericResult] = []
    findings: list[Finding] = []
    for one in trees:
        started = time.perf_counter()
        with _unpatched(one) as base:
            outcomes = team.run(one.tree, kernels, cases, base, progress)
        findings += findings_of(outcomes)
        right = sum(outcome.ok for outcome in outcomes)
        results.append(
            NumericResult(
                target=one.carried.name,
                tree=one.tree.name,
                outcome="holds" if right == len(outcomes) else "differs",
                aiter=kernels.name,
                base=base.name if base is not None else None,
                ran_with=team.about,
                cases=len(outcomes),
                right=right,
                seconds=round(time.perf_counter() - started, 1),
                numeric=summarize(outcomes),
                chains=chains_of(outcomes),
                lives=tuple(probe(one.tree, kernels).values()),
            )
        )
    return Report(
        verb="verify",
        exit_code=Exit.FAILS if findings else Exit.DONE,
        message=_summary(findings),
        results=tuple(results),
        findings=tuple(findings),
    )


@contextmanager
def _unpatched(one: FoundTarget) -> Iterator[Tree | None]:
    """The same tree without the series; None if it is not the pinned release."""
    carried, tree = one.carried, one.tree
    contents = {path: tree.read(path) for path in carried.chains}
    if not all(
        data is not None and blob_id(data) in carried.chains[path]
        for path, data in contents.items()
    ):
        yield None
        return
    with pinned_base(ROOT, carried, tree.root) as base:
        if base is None:
            yield None
            return
        changes = {path: base.read(path) for path in carried.chains}
        changes |= {file.path: None for file in carried.new_files}
        yield EditedTree(tree, changes)


def show(report: Report) -> str:
    """The report as text."""
    blocks = []
    for result in report.results:
        if isinstance(result, NumericResult):
            blocks.append(_show_numeric(result))
            continue
        if isinstance(result, AuditResult):
            blocks.append(rendered(result.audit).rstrip())
            continue
        assert isinstance(result, VerifyResult)
        lines = [f"{result.target}: {result.outcome}  ({result.tree})"]
        if result.hunks:
            lines += [f"tree {result.digest}", hunk_table(result.hunks)]
        if result.sites:
            rows = ((s.site, *_where(s), s.state.value) for s in result.sites)
            lines.append(table(("SITE", "FILE", "SCOPE", "STATE"), rows))
        lines += skipped_lines(result)
        lines += [f"  {note}" for note in result.notes]
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)


def _show_numeric(result: NumericResult) -> str:
    """For each site and route, how many of the scales are right; then the copies."""
    sites = table(
        ("SITE", "ROUTE", "BYTES", "VALUES", "GEMM", "COPIES", "IF NOT ASKED", "BY"),
        (
            (
                row.site,
                row.route,
                f"{row.bytes}/{row.readings}",
                f"{row.values}/{row.compared}" if row.compared else "-",
                f"{row.gemm}/{row.compared}" if row.compared else "-",
                row.copies_asked or "-",
                row.copies_unasked or "-",
                ", ".join(row.stand_ins),
            )
            for row in result.numeric
        ),
    )
    chains = table(
        ("CHAIN", "CONSUMERS' ROUTES", "RELAYOUTS", "IF NOT ASKED"),
        (
            (
                row.chain,
                ", ".join(row.routes),
                row.relayouts_asked or "-",
                row.relayouts_unasked or "-",
            )
            for row in result.chains
        ),
    )
    lives = table(
        ("SITE", "NATIVE BLOCK FP8", "AT", "WHY"),
        (
            (one.site, one.state.value, one.at or "-", one.reason)
            for one in result.lives
        ),
    )
    compared = result.base or "the kernels only: not the pinned release"
    return "\n".join(
        (
            f"{result.target}: {result.outcome}  ({result.tree})",
            f"AITER     {result.aiter}",
            f"compared  with {compared}",
            f"run       {', '.join(f'{k} {v}' for k, v in result.ran_with.items())}",
            f"cases     {result.right} of {result.cases} right, {result.seconds} s",
            sites,
            "",
            chains,
            "",
            lives,
        )
    )


def _where(row: SiteRow) -> tuple[str, str]:
    file = (row.path or "-").rpartition("/")[2]
    return (f"{file}:{row.line}" if row.line else file, row.scope or "-")


if __name__ == "__main__":
    run(
        Verb(
            "Check that a tree is exactly what the lock records: blob ids, scopes, and "
            "the census of producers and consumers; with --numeric, run it.",
            (
                "scripts/verify.py ~/src/sglang ~/src/aiter",
                "scripts/verify.py --json /opt/venv/lib/python3.10/site-packages",
                "scripts/verify.py --numeric build/sglang build/aiter",
                "scripts/verify.py --numeric --open all sglang --aiter aiter",
            ),
            options,
            verify,
            show,
        )
    )
