"""Checks that a kept result agrees with its own evidence.

The gate uses a kept result without running the stage again, so anyone who can write the
file can write a verdict. A stage that really ran never writes a result that contradicts
itself: a pass with a failing part, a verdict that differs from the step's exit code, a
negative duration, counts that do not add up. Such a result is invalid evidence.

A result has every field of ``StageReport``. Its ``evidence`` has one document for each
step that reports. Each document needs ``verb``, ``exit_code`` and ``results``; other
fields are checked if present.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from gatekit.report.schema import StageReport, StageState
from overlaykit.core.errors import Exit, Finding

STATES = {
    Exit.DONE: StageState.PASS,
    Exit.FAILS: StageState.FAIL,
    Exit.INVALID: StageState.INCONCLUSIVE,
    # The first stage checks whether the series applies.
    Exit.CANNOT_APPLY: StageState.FAIL,
}
# Reported next to a verdict without deciding it.
_NOT_DECISIVE = ("threshold",)
_ROUNDING = 1e-9


def state_of(code: int, decides: bool) -> StageState:
    """The state of a step with this exit code."""
    if not decides:
        return StageState.PASS if code == Exit.DONE else StageState.ERROR
    known = code in {one.value for one in Exit}
    return STATES.get(Exit(code), StageState.ERROR) if known else StageState.ERROR


def contradictions(
    report: StageReport, steps: Sequence[tuple[str, bool]]
) -> Iterator[Finding]:
    """Contradictions in a kept result. ``steps`` are the stage's steps that report: the
    name of each, and whether its exit code is a verdict."""
    for name in ("started", "seconds"):
        if (value := getattr(report, name)) < 0:
            what = (
                "the stage ends before it starts"
                if name == "seconds"
                else "the stage has no start"
            )
            yield Finding(what, expected=f'"{name}" 0 or more', found=f"{value:g}")
    passed = report.state is StageState.PASS
    if passed and (report.reason or report.findings):
        yield Finding(
            "the result is a pass but gives a reason against it",
            expected='a pass without "reason" and "findings"',
            found=f"{report.reason or report.findings[0].what}",
        )
    codes: list[tuple[str, StageState]] = []
    for name, decides in steps:
        if name not in report.evidence:
            if passed:
                yield Finding(
                    "the result is a pass but its evidence is not",
                    expected=f'"evidence" of step {name}',
                    found=", ".join(report.evidence) or "none",
                )
            continue
        document = report.evidence[name]
        code = _exit_code(document)
        if code is None:
            yield Finding(
                f"the evidence of step {name} is not a verb's report",
                expected='"verb", "exit_code" and "results"',
                found=", ".join(document)
                if isinstance(document, dict)
                else "not a table",
            )
            continue
        codes.append((name, state_of(code, decides)))
        yield from _document(name, code, document)
    worse = [(name, state) for name, state in codes if state is not StageState.PASS]
    if worse and worse[0][1] is not report.state:
        yield Finding(
            f"the result is {report.state.value} but its evidence is not",
            expected=f'"state" {worse[0][1].value}, the state of step {worse[0][0]}',
            found=report.state.value,
        )


def _exit_code(document: Any) -> int | None:
    """The exit code in a verb's report, or None if this is not one."""
    if not isinstance(document, dict) or not isinstance(document.get("verb"), str):
        return None
    code = document.get("exit_code")
    return code if type(code) is int and "results" in document else None


def _document(step: str, code: int, document: Mapping[str, Any]) -> Iterator[Finding]:
    for place, value in _tables(document, ""):
        if code == Exit.DONE:
            for wrong in _failing(value, place):
                yield Finding(
                    f"step {step} has exit code 0 but a part that fails",
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
    """This table and every table in it, with its path."""
    if isinstance(value, dict):
        yield place, value
        for name, one in value.items():
            if name not in _NOT_DECISIVE:
                yield from _tables(one, f"{place}.{name}" if place else name)
    elif isinstance(value, list):
        for number, one in enumerate(value):
            yield from _tables(one, f"{place}[{number}]")


def _failing(table: Mapping[str, Any], place: str) -> Iterator[tuple[str, str]]:
    verdict = table.get("verdict")
    if isinstance(verdict, str) and verdict != StageState.PASS.value:
        yield "verdict", verdict
    if table.get("holds") is False:
        yield "holds", "false"
    if not place and table.get("findings"):
        yield "findings", "present"
    cases, right = table.get("cases"), table.get("right")
    if type(cases) is int and type(right) is int and right != cases:
        yield "right", f"{right} of {cases} cases"


def _sums(table: Mapping[str, Any]) -> Iterator[tuple[str, str, Any]]:
    """Counts that do not add up: the field, the expected value and the found value."""
    count = {k: v for k, v in table.items() if type(v) is int}
    asked, answered = count.get("questions"), count.get("answered")
    if asked is not None and answered is not None:
        if not 0 <= answered <= asked:
            yield "answered", f"0 to {asked}", answered
        # Failed requests have no answer, so only the number asked limits them.
        most = dict.fromkeys(("correct", "truncated", "silent"), answered)
        for name, limit in (*most.items(), ("failed", asked)):
            if name in count and not 0 <= count[name] <= limit:
                yield name, f"0 to {limit}", count[name]
    if {"cases", "right"} <= set(count) and not 0 <= count["right"] <= count["cases"]:
        yield "right", f"0 to {count['cases']}", count["right"]
    yield from _rates(table)
    yield from _score(table)


def _rates(table: Mapping[str, Any]) -> Iterator[tuple[str, str, Any]]:
    """Rates of an arm that do not match the counts of its runs."""
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


def _score(table: Mapping[str, Any]) -> Iterator[tuple[str, str, Any]]:
    """Figures of a score that do not match its counts, or lie outside its interval."""
    names = ("questions", "gained", "lost", "difference", "lower", "upper")
    values: list[Any] = [table.get(name) for name in names]
    if not all(type(value) in (int, float) for value in values):
        return
    questions, gained, lost, difference, lower, upper = values
    if questions < 1:
        yield "questions", "1 or more", questions
        return
    part = (gained - lost) / questions
    if not math.isclose(difference, part, abs_tol=_ROUNDING):
        yield "difference", f"{part:.9g} ({gained:g} gained, {lost:g} lost)", difference
    if not lower - _ROUNDING <= difference <= upper + _ROUNDING:
        yield "difference", f"{lower:.9g} to {upper:.9g}", difference
