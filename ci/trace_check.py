#!/usr/bin/env python3
"""Do a module's profiler traces show what the series claims?

The claim: no scale-relayout copy is left in any layer's attention. With ``--baseline``:
the copies that it had are gone, nothing else is, and the time fell by about theirs. A
trace in which that would be true by accident is no evidence, and is called invalid.
"""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import cast

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))

import overlaykit  # noqa: F401  (first: it sees to what cannot be imported)

# isort: split
import msgspec

from gatekit.records.checks import Check
from gatekit.traces.attribution import Method
from gatekit.traces.checks import Verdict
from gatekit.traces.comparison import Change
from gatekit.traces.figures import Figures, KernelFigures, Layer
from gatekit.traces.files import Found, Job, captures_of, find, jobs
from gatekit.traces.page import page
from gatekit.traces.timeline import timeline, typical
from gatekit.traces.verdicts import Asked, Examined, Judged, decide, examine
from overlaykit.cli import Report, Result, Verb, run, table
from overlaykit.core.errors import EnvironmentFailure, Exit, Finding, InputError
from overlaykit.core.files import write_whole
from overlaykit.core.options import whole_number

_EXITS = {
    Verdict.PASS: Exit.DONE,
    Verdict.FAIL: Exit.FAILS,
    Verdict.INVALID: Exit.INVALID,
}
# From best to worst; a file that cannot be read says least.
_ORDER = (Exit.DONE, Exit.FAILS, Exit.INVALID, Exit.ENVIRONMENT, Exit.USAGE)


class Ran(msgspec.Struct, frozen=True):
    """One kernel of a call."""

    name: str
    time_ns: int


class Side(Result, frozen=True, kw_only=True):
    """A trace's figures. Unattributed ones are of stretches, not of modules.
    ``typical`` is the call that the timeline draws, kernel by kernel, in order."""

    method: str
    gpu: str
    rank: int | None
    layout: str
    attributed: bool
    replays: int
    replayed: int
    calls: int
    totals: Figures
    layers: tuple[Layer, ...]
    kernels: tuple[KernelFigures, ...]
    typical: tuple[Ran, ...]


class TraceResult(Result, frozen=True, kw_only=True):
    """One trace's verdict, what it rests on, and its figures, before and after."""

    verdict: Verdict
    controls: tuple[Check, ...]
    claims: tuple[Check, ...]
    after: Side
    before: Side | None
    changes: tuple[Change, ...]


def options(parser: ArgumentParser) -> None:
    parser.add_argument(
        "trace",
        metavar="TRACE",
        nargs="+",
        type=Path,
        help="the profiler's files, plain or gz, or a directory of them; each is "
        "judged on its own, and the worst verdict wins",
    )
    for name, what in (
        ("baseline", "of the tree without the series, paired by TP rank"),
        ("capture", "of the graphs' capture, or of the same step run eagerly"),
    ):
        parser.add_argument(
            f"--{name}",
            metavar="TRACE",
            nargs="+",
            default=[],
            type=Path,
            help=f"traces {what}",
        )
    parser.add_argument(
        "--baseline-capture",
        metavar="TRACE",
        nargs="+",
        default=[],
        type=Path,
        help="as --capture, for the baseline's graphs",
    )
    parser.add_argument(
        "--module",
        default="DeepseekV2AttentionMLA",
        help="the class of the modules that are judged (default: %(default)s)",
    )
    for name, default, what in (
        ("layers", 78, "how many layers have that module (default: %(default)s)"),
        ("copies", 0, "copies in each of them (default: %(default)s)"),
        ("gemms", None, "GEMMs in each of them (default: as many as in the others)"),
    ):
        parser.add_argument(
            f"--expect-{name}",
            metavar="N",
            type=whole_number(0),
            default=default,
            help=what,
        )
    parser.add_argument(
        "--html", metavar="FILE", type=Path, help="write a page with figures and a plot"
    )
    parser.add_argument(
        "--svg", metavar="FILE", type=Path, help="write the timeline of one layer"
    )


def check(arguments: Namespace) -> Report:
    """Judge every trace; one that cannot be read does not stop the others."""
    asked = Asked(
        arguments.module,
        arguments.expect_layers,
        arguments.expect_copies,
        arguments.expect_gemms,
    )
    if asked.layers < 1:
        raise InputError("--expect-layers must be at least 1")
    if arguments.baseline_capture and not arguments.baseline:
        raise InputError("--baseline-capture needs a --baseline that it is of")
    named = [
        find(paths)
        for paths in (
            arguments.trace,
            arguments.baseline,
            arguments.capture,
            arguments.baseline_capture,
        )
    ]
    plan = jobs(*named[:3])
    judged: list[Judged] = []
    findings: list[Finding] = []
    unread: list[Finding] = []
    codes: list[Exit] = []
    for job in plan:
        try:
            one = _judge(job, named[3], asked)
        except (InputError, EnvironmentFailure) as error:
            unread += error.findings or (Finding(error.message, path=str(job.trace)),)
            codes.append(error.exit_code)
            continue
        judged.append(one)
        findings += _findings(one)
        codes.append(_EXITS[one.verdict])
    if arguments.svg and judged:
        write_whole(arguments.svg, timeline(judged[0]))
    # Also of none: an older page would go on saying what it said.
    if arguments.html:
        write_whole(arguments.html, page(judged, asked, unread))
    results = tuple(_result(one, asked) for one in judged)
    worst = max(codes, key=_ORDER.index)
    return Report(
        verb="trace_check",
        exit_code=worst,
        message=_message(worst, results, len(plan)) + _passed_over(named),
        results=results,
        findings=(*findings, *unread),
    )


def _judge(job: Job, baseline_captures: Found, asked: Asked) -> Judged:
    one = examine(job.trace, asked, job.captures)
    if job.baseline is None:
        return decide(one, None, asked)
    captures = captures_of(job.baseline, baseline_captures.traces)
    return decide(one, examine(job.baseline, asked, captures), asked)


def _passed_over(named: list[Found]) -> str:
    others = dict.fromkeys(path for found in named for path in found.others)
    if not others:
        return ""
    return "; passed over, for they are no traces: " + ", ".join(map(str, others))


def _findings(judged: Judged) -> list[Finding]:
    """What does not hold. Claims of an invalid trace say nothing and are left out."""
    checks = judged.claims
    if judged.verdict is Verdict.INVALID:
        checks = judged.controls
    return [
        Finding(
            f"{judged.verdict.value}: {check.name}",
            path=judged.examined.trace.path,
            expected=check.expected,
            found=check.found,
            next_step=_next_step(judged, check),
        )
        for check in checks
        if not check.holds
    ]


def _next_step(judged: Judged, check: Check) -> str | None:
    if "belong to modules" in check.name:
        return "give the capture's trace with --capture"
    if "captured launches are named" in check.name:
        return "give the trace of the same step run eagerly as --capture"
    if "balance" in check.name and judged.examined.attribution.replays:
        return (
            "the profiler lost kernels of replayed graphs (ROCm before 7.2.2 does: "
            "SGLang 35390); profile with another ROCm, or without graphs"
        )
    return None


def _message(worst: Exit, results: tuple[TraceResult, ...], traces: int) -> str:
    names = {code: verdict.value for verdict, code in _EXITS.items()}
    said = ", ".join(one.verdict.value for one in results)
    return f"{names.get(worst, 'unreadable')}: {traces} trace(s): {said or 'none read'}"


def _side(one: Examined, module: str) -> Side:
    attribution, trace = one.attribution, one.trace
    call = typical(one)
    return Side(
        target=module,
        tree=trace.path,
        outcome=attribution.method.value,
        method=attribution.method.value,
        gpu=trace.gpu,
        rank=trace.rank,
        layout=trace.layout,
        attributed=attribution.method is not Method.UNATTRIBUTED,
        replays=attribution.replays,
        replayed=attribution.replayed,
        calls=len(one.calls),
        totals=one.totals,
        layers=one.layers,
        kernels=one.kernels,
        typical=tuple(Ran(w.name, w.duration) for w in call.work) if call else (),
    )


def _result(judged: Judged, asked: Asked) -> TraceResult:
    baseline = judged.baseline
    return TraceResult(
        target=asked.module,
        tree=judged.examined.trace.path,
        outcome=judged.verdict.value,
        verdict=judged.verdict,
        controls=judged.controls,
        claims=judged.claims,
        after=_side(judged.examined, asked.module),
        before=_side(baseline, asked.module) if baseline else None,
        changes=judged.changes,
    )


def show(report: Report) -> str:
    """The report as a person reads it."""
    blocks = []
    for one in cast("tuple[TraceResult, ...]", report.results):
        held = sum(control.holds for control in one.controls)
        lines = [
            f"{one.verdict.value}: {one.target}  ({one.tree})",
            f"  method    {one.after.method}",
            f"  controls  {held} of {len(one.controls)} hold",
        ]
        if one.verdict is not Verdict.INVALID:
            lines += [
                f"  {'holds' if claim.holds else 'FAILS'}     {claim.name}: "
                f"{claim.found}"
                for claim in one.claims
            ]
        sides = [side for side in (one.before, one.after) if side]
        lines += ["", _layer_table(sides), "", _kernel_table(one)]
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)


def _layer_table(sides: list[Side]) -> str:
    """Each layer, and all of them: kernels, copies, copies of any name right before a
    GEMM, copies that are not counted among those claimed on, microseconds."""
    columns = ("KERNELS", "COPIES", "AT GEMM", "OTHER", "us")
    named = len(sides) > 1
    header = ["LAYER" if sides[-1].attributed else "STRETCH"]
    for when, _ in zip(("BEFORE", "AFTER"), sides, strict=False):
        header += [f"{when} {name}" if named else name for name in columns]
    found = [{layer.layer: layer.per_call for layer in side.layers} for side in sides]
    rows = [
        [str(number), *(cell for side in found for cell in _cells(side.get(number)))]
        for number in sorted({key for side in found for key in side})
    ]
    rows.append(["all", *(cell for side in sides for cell in _cells(side.totals))])
    return table(header, rows)


def _cells(one: Figures | None) -> tuple[str, ...]:
    if one is None:
        return ("-",) * 5
    time = f"{one.time_ns / 1000:.2f}"
    counts = (one.kernels, one.copies, one.before_gemm, one.other_copies)
    return (*map(str, counts), time)


def _kernel_table(one: TraceResult) -> str:
    if one.changes:
        rows = [
            (
                change.change,
                change.short,
                change.kind,
                f"{change.before:g} -> {change.after:g}",
                f"{change.before_ns / 1000:.2f} -> {change.after_ns / 1000:.2f}",
            )
            for change in one.changes
        ]
        return table(("CHANGE", "KERNEL", "KIND", "PER CALL", "us PER CALL"), rows)
    calls = max(one.after.calls, 1)
    found = (
        (k.short, k.kind, f"{k.launches / calls:g}", f"{k.time_ns / calls / 1000:.2f}")
        for k in one.after.kernels
    )
    return table(("KERNEL", "KIND", "PER CALL", "us PER CALL"), found)


if __name__ == "__main__":
    run(
        Verb(
            "Judge profiler traces of SGLang: are the scale copies gone from every "
            "layer's attention, and does the trace prove it? Prints pass (exit code "
            "0), fail (1) or invalid (4): a trace that cannot show the claim is none.",
            (
                "ci/trace_check.py run-TP-0-DECODE.trace.json.gz",
                "ci/trace_check.py after/ --baseline before/ --html report.html",
                "ci/trace_check.py decode.json.gz --capture capture_traces/ \\",
                "    --module Qwen3Attention --expect-layers 36 --expect-copies 2",
            ),
            options,
            check,
            show,
        )
    )
