"""``ci/trace_check.py``: a verdict on every trace that is named."""

from __future__ import annotations

from argparse import Namespace

from gatekit.records.checks import Check, Verdict
from gatekit.traces.files import Job, TraceFiles, captures_of, find, jobs
from gatekit.traces.page import page
from gatekit.traces.results import TraceResult, result_of
from gatekit.traces.timeline import timeline
from gatekit.traces.verdicts import Assessment, Requirement, analyse, decide
from overlaykit.cli import Report
from overlaykit.core.errors import EnvironmentFailure, Exit, Finding, InputError
from overlaykit.core.files import check_place, write_whole

_EXITS = {
    Verdict.PASS: Exit.DONE,
    Verdict.FAIL: Exit.FAILS,
    Verdict.INVALID: Exit.INVALID,
}
# From best to worst: an unreadable file gives the least evidence.
_ORDER = (Exit.DONE, Exit.FAILS, Exit.INVALID, Exit.ENVIRONMENT, Exit.USAGE)


def call(arguments: Namespace) -> Report:
    """Check every trace. An unreadable trace does not stop the others."""
    required = _requirement(arguments)
    check_place(arguments.svg, arguments.html)
    traces, baselines, captures, baseline_captures = named = [
        find(paths)
        for paths in (
            arguments.trace,
            arguments.baseline,
            arguments.capture,
            arguments.baseline_capture,
        )
    ]
    plan = jobs(traces, baselines, captures)
    assessments: list[Assessment] = []
    findings: list[Finding] = []
    unread: list[Finding] = []
    codes: list[Exit] = []
    for job in plan:
        try:
            one = _assess(job, baseline_captures, required)
        except (InputError, EnvironmentFailure) as error:
            unread += error.findings or (Finding(error.message, path=str(job.trace)),)
            codes.append(error.exit_code)
            continue
        assessments.append(one)
        findings += _findings(one)
        codes.append(_EXITS[one.verdict])
    if arguments.svg and assessments:
        write_whole(arguments.svg, timeline(assessments[0]))
    # Written even if no trace was read: a page from an earlier run would be stale.
    if arguments.html:
        write_whole(arguments.html, page(assessments, required, unread))
    results = tuple(result_of(one, required) for one in assessments)
    worst = max(codes, key=_ORDER.index)
    return Report(
        verb="trace_check",
        exit_code=worst,
        message=_message(worst, results, len(plan)) + _ignored(named),
        results=results,
        findings=(*findings, *unread),
    )


def _requirement(arguments: Namespace) -> Requirement:
    if arguments.expect_layers < 1:
        raise InputError("--expect-layers must be at least 1")
    if arguments.baseline_capture and not arguments.baseline:
        raise InputError("--baseline-capture needs --baseline")
    return Requirement(
        arguments.module,
        arguments.expect_layers,
        arguments.expect_copies,
        arguments.expect_gemms,
    )


def _assess(job: Job, baselines: TraceFiles, required: Requirement) -> Assessment:
    """``baselines`` are the captures of the baseline's graphs."""
    one = analyse(job.trace, required, job.captures)
    if job.baseline is None:
        return decide(one, None, required)
    captures = captures_of(job.baseline, baselines.traces)
    return decide(one, analyse(job.baseline, required, captures), required)


def _ignored(named: list[TraceFiles]) -> str:
    others = dict.fromkeys(path for found in named for path in found.others)
    if not others:
        return ""
    return "; ignored files that are not traces: " + ", ".join(map(str, others))


def _findings(assessment: Assessment) -> list[Finding]:
    """The checks that do not hold. An invalid trace proves no claim either way, so its
    claims are left out."""
    checks = assessment.claims
    if assessment.verdict is Verdict.INVALID:
        checks = assessment.controls
    return [
        Finding(
            f"{assessment.verdict.value}: {check.name}",
            path=assessment.analysed.trace.path,
            expected=check.expected,
            found=check.found,
            next_step=_next_step(assessment, check),
        )
        for check in checks
        if not check.holds
    ]


def _next_step(assessment: Assessment, check: Check) -> str | None:
    if "belong to modules" in check.name:
        return "give the capture's trace with --capture"
    if "captured launches are named" in check.name:
        return "give the trace of the same step run eagerly as --capture"
    if "balance" in check.name and assessment.analysed.attribution.replays:
        return (
            "the profiler lost kernels of replayed graphs (ROCm before 7.2.2 does: "
            "SGLang 35390); profile with another ROCm, or without graphs"
        )
    return None


def _message(worst: Exit, results: tuple[TraceResult, ...], traces: int) -> str:
    names = {code: verdict.value for verdict, code in _EXITS.items()}
    verdicts = ", ".join(one.verdict.value for one in results) or "none read"
    return f"{names.get(worst, 'unreadable')}: {traces} trace(s): {verdicts}"
