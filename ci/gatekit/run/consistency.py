"""Whether a kept result is borne out by what it holds.

A result that was decided is taken again without a run, so whoever can write the file
can write a verdict. Nothing that ran writes one that its own parts contradict: a pass
beside a failing part, a judgement that is not that of the step that made it, an end
before its start, counts that do not add up. Such a result is invalid evidence.

A result has every field of ``StageReport``. Of its ``evidence``, one document for each
step that reports, ``verb``, ``exit_code`` and ``results`` are needed; the rest is read
where it is there.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from gatekit.report.schema import StageReport, State
from overlaykit.core.errors import Exit, Finding

STATES = {
    Exit.DONE: State.PASS,
    Exit.FAILS: State.FAIL,
    Exit.INVALID: State.INCONCLUSIVE,
    # The series cannot be put on: that is what the first stage is to find out.
    Exit.CANNOT_APPLY: State.FAIL,
}
# Shown beside a verdict, which does not rest on it.
_BESIDE = ("threshold",)
_ROUNDING = 1e-9


def state_of(code: int, judges: bool) -> State:
    """What a step that ended so came to."""
    if not judges:
        return State.PASS if code == Exit.DONE else State.ERROR
    known = code in {one.value for one in Exit}
    return STATES.get(Exit(code), State.ERROR) if known else State.ERROR


def against(
    report: StageReport, steps: Sequence[tuple[str, bool]]
) -> Iterator[Finding]:
    """Why a decided result cannot be believed. ``steps`` are those of the stage that
    report, by name, and whether each judges."""
    for name in ("started", "seconds"):
        if (value := getattr(report, name)) < 0:
            what = (
                "it ends before it starts" if name == "seconds" else "it has no start"
            )
            yield Finding(what, expected=f'"{name}" 0 or more', found=f"{value:g}")
    passed = report.state is State.PASS
    if passed and (report.reason or report.findings):
        yield Finding(
            "it says pass, and why it is none",
            expected='no "reason" and no "findings" of a pass',
            found=f"{report.reason or report.findings[0].what}",
        )
    codes: list[tuple[str, State]] = []
    for name, judges in steps:
        if name not in report.evidence:
            if passed:
                yield Finding(
                    "it says pass, and its evidence does not",
                    expected=f'"evidence" of step {name}',
                    found=", ".join(report.evidence) or "none",
                )
            continue
        document = report.evidence[name]
        code = _exit_code(document)
        if code is None:
            yield Finding(
                f"the evidence of step {name} is no report of a verb",
                expected='"verb", "exit_code" and "results"',
                found=", ".join(document) if isinstance(document, dict) else "no table",
            )
            continue
        codes.append((name, state_of(code, judges)))
        yield from _document(name, code, document)
    worse = [(name, state) for name, state in codes if state is not State.PASS]
    if worse and worse[0][1] is not report.state:
        yield Finding(
            f"it says {report.state.value}, and its evidence does not",
            expected=f'"state" {worse[0][1].value}, as step {worse[0][0]} came to',
            found=report.state.value,
        )


def _exit_code(document: Any) -> int | None:
    """As a verb's report has it; None of anything else."""
    if not isinstance(document, dict) or not isinstance(document.get("verb"), str):
        return None
    code = document.get("exit_code")
    return code if type(code) is int and "results" in document else None


def _document(step: str, code: int, document: Mapping[str, Any]) -> Iterator[Finding]:
    for place, value in _tables(document, ""):
        if code == Exit.DONE:
            for wrong in _failing(value, place):
                yield Finding(
                    f"step {step} says exit code 0 beside a part that fails",
                    expected=f"{place or 'the report'} without {wrong[0]} {wrong[1]}",
                    found=f'"{wrong[0]}" {wrong[1]}',
                )
        for name, expected, found in _sums(value):
            yield Finding(
                f"step {step}: counts do not add up",
                expected=f'"{place}.{name}" {expected}',
                found=str(found),
            )


def _tables(value: Any, place: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every table below, with its place."""
    if isinstance(value, dict):
        yield place, value
        for name, one in value.items():
            if name not in _BESIDE:
                yield from _tables(one, f"{place}.{name}" if place else name)
    elif isinstance(value, list):
        for number, one in enumerate(value):
            yield from _tables(one, f"{place}[{number}]")


def _failing(table: Mapping[str, Any], place: str) -> Iterator[tuple[str, str]]:
    verdict = table.get("verdict")
    if isinstance(verdict, str) and verdict != State.PASS.value:
        yield "verdict", verdict
    if table.get("holds") is False:
        yield "holds", "false"
    if not place and table.get("findings"):
        yield "findings", "that are wrong"
    cases, right = table.get("cases"), table.get("right")
    if type(cases) is int and type(right) is int and right != cases:
        yield "right", f"{right} of {cases} cases"


def _sums(table: Mapping[str, Any]) -> Iterator[tuple[str, str, Any]]:
    """Counts and figures that are each other's: a field, what it must be, and is."""
    count = {k: v for k, v in table.items() if type(v) is int}
    asked, answered = count.get("questions"), count.get("answered")
    if asked is not None and answered is not None:
        if not 0 <= answered <= asked:
            yield "answered", f"0 to {asked}", answered
        # A run's own report counts requests that failed, and so are no answers.
        most = dict.fromkeys(("correct", "truncated", "silent"), answered)
        for name, limit in (*most.items(), ("failed", asked)):
            if name in count and not 0 <= count[name] <= limit:
                yield name, f"0 to {limit}", count[name]
    if {"cases", "right"} <= set(count) and not 0 <= count["right"] <= count["cases"]:
        yield "right", f"0 to {count['cases']}", count["right"]
    yield from _of_runs(table)
    yield from _of_score(table)


def _of_runs(table: Mapping[str, Any]) -> Iterator[tuple[str, str, Any]]:
    """An arm's rates are those of its runs."""
    runs = table.get("runs")
    if not isinstance(runs, list) or not all(isinstance(one, dict) for one in runs):
        return
    asked = [one.get("questions") for one in runs]
    if not asked or not all(type(n) is int and n > 0 for n in asked):
        return
    for rate, count in (
        ("accuracy", "correct"),
        ("truncated", "truncated"),
        ("silent", "silent"),
    ):
        found, counts = table.get(rate), [one.get(count) for one in runs]
        if isinstance(found, int | float) and all(type(n) is int for n in counts):
            part = sum(counts) / sum(asked)
            if not math.isclose(found, part, abs_tol=_ROUNDING):
                yield rate, f"{part:.9g} ({sum(counts)} of {sum(asked)})", found


def _of_score(table: Mapping[str, Any]) -> Iterator[tuple[str, str, Any]]:
    names = ("questions", "gained", "lost", "difference", "lower", "upper")
    told: list[Any] = [table.get(name) for name in names]
    if not all(type(value) in (int, float) for value in told):
        return
    questions, gained, lost, difference, lower, upper = told
    if questions < 1:
        yield "questions", "1 or more", questions
        return
    part = (gained - lost) / questions
    if not math.isclose(difference, part, abs_tol=_ROUNDING):
        yield "difference", f"{part:.9g} ({gained:g} gained, {lost:g} lost)", difference
    if not lower - _ROUNDING <= difference <= upper + _ROUNDING:
        yield "difference", f"{lower:.9g} to {upper:.9g}", difference
