"""``ci/bench.py compare``."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import replace

import msgspec

from gatekit.records.checks import Verdict
from gatekit.serving.command import ARMS
from gatekit.serving.comparison import compare
from gatekit.serving.evidence import (
    ObservedRun,
    of_outputs,
    of_records,
    reasons_against,
)
from gatekit.serving.points import Point
from gatekit.serving.results import ArmRuns, Comparison, PointDelta, percent_text
from overlaykit.cli import Report, table
from overlaykit.core.errors import Exit, Finding, InputError

_EXITS = {Verdict.PASS: Exit.DONE, Verdict.FAIL: Exit.FAILS}


def call(arguments: Namespace, points: tuple[Point, ...]) -> Report:
    """Compare the arms."""
    if not 0 < arguments.margin < 100:
        raise InputError("--margin must be between 0 and 100 percent")
    if not 0 < arguments.alpha < 0.5:
        raise InputError("--alpha must be between 0 and 0.5")
    runs, notes = _runs(arguments)
    result = compare(runs, points, arguments.margin / 100, arguments.alpha)
    result = msgspec.structs.replace(result, notes=(*result.notes, *notes))
    reasons = reasons_against(runs, points) or [*map(Finding, result.reasons)]
    compared = sum(bool(row.judged) for row in result.points)
    message = (
        f"{result.verdict.value}: {compared} of {len(points)} points compared, "
        f"{result.rounds} rounds"
    )
    if result.rounds_to_decide:
        message += f"; {result.rounds_to_decide} rounds in total would decide"
    return Report(
        verb="bench",
        exit_code=_EXITS.get(result.verdict, Exit.INVALID),
        results=(result,),
        findings=tuple(
            replace(one, what=f"{result.verdict.value}: {one.what}") for one in reasons
        ),
        message=message,
    )


def _runs(arguments: Namespace) -> tuple[list[ObservedRun], list[str]]:
    """The runs, and a note for each directory without runs: if a node never started,
    its points are not run, and the others are compared."""
    outputs = [(arm, vars(arguments)[arm]) for arm in ARMS]
    if arguments.records and not any(paths for _, paths in outputs):
        outs = {path.resolve(): of_records(path) for path in arguments.records}
        if len(outs) < len(arguments.records):
            raise InputError("each directory can be named only once")
        empty = [
            f"no run is recorded in {out}" for out, runs in outs.items() if not runs
        ]
        if len(empty) == len(outs):
            raise InputError("; ".join(empty))
        return [run for runs in outs.values() for run in runs], empty
    if not arguments.records and all(paths for _, paths in outputs):
        return [one for arm, paths in outputs for one in of_outputs(arm, paths)], []
    raise InputError("expected either directories of run, or output files of both arms")


def show(report: Report) -> str:
    """The report as a person reads it."""
    (result,) = report.results
    if not isinstance(result, Comparison):
        return ""
    parts = [*map(_arm, result.arms), _points(result), "\n".join(result.notes)]
    return "\n\n".join(part for part in parts if part)


def _arm(arm: ArmRuns) -> str:
    hosts = ", ".join(arm.hosts) or "an unrecorded node"
    origin = str(arm.origin) if arm.origin else "several origins"
    return f"{arm.arm}: {arm.runs} runs on {hosts}\n  " + origin.replace(", ", "\n  ")


def _points(result: Comparison) -> str:
    header = ("POINT", "THROUGHPUT", "MEDIAN TPOT", "WITHIN", "MEDIAN TTFT (advisory)")
    rows = [_row(row) for row in result.points]
    if result.headline:
        throughput, tpot, ttft = map(percent_text, result.headline)
        rows.append(("all compared", throughput, tpot, "", ttft))
    return (
        f"patched to baseline, geometric means of {result.rounds} rounds, 95 % "
        f"intervals; margin {result.margin_percent:g} %\n{table(header, rows)}"
    )


def _row(row: PointDelta) -> tuple[str, ...]:
    if row.ttft is None:
        return (row.point, row.outcome, "", "", "")
    return (
        row.point,
        *map(percent_text, row.judged),
        _within(row),
        percent_text(row.ttft),
    )


def _within(row: PointDelta) -> str:
    """The result of the deciding metric."""
    decisions = {one.decision for one in row.judged}
    if "worse" in decisions:
        return f"NO (p {min(one.harm_p or 0 for one in row.judged):.4f})"
    p = max(one.noninferior_p or 0 for one in row.judged)
    return f"{'yes' if decisions == {'non-inferior'} else 'not shown'} (p {p:.4f})"
