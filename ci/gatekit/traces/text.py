"""The report of ``ci/trace_check.py`` as text."""

from __future__ import annotations

from typing import cast

from gatekit.records.checks import Verdict
from gatekit.traces.figures import Figures
from gatekit.traces.results import Side, TraceResult
from overlaykit.cli import Report, table


def show(report: Report) -> str:
    """The report as a person reads it."""
    results = cast("tuple[TraceResult, ...]", report.results)
    return "\n\n".join(map(_result, results))


def _result(one: TraceResult) -> str:
    held = sum(control.holds for control in one.controls)
    lines = [
        f"{one.verdict.value}: {one.target}  ({one.tree})",
        f"  method    {one.after.method}",
        f"  controls  {held} of {len(one.controls)} hold",
    ]
    if one.verdict is not Verdict.INVALID:
        lines += [
            f"  {'holds' if claim.holds else 'FAILS'}     {claim.name}: {claim.found}"
            for claim in one.claims
        ]
    sides = [side for side in (one.before, one.after) if side]
    lines += ["", _layer_table(sides), "", _kernel_table(one)]
    return "\n".join(lines)


def _layer_table(sides: list[Side]) -> str:
    """One row per layer, and one for all: kernels, copies, copies of any name right
    before a GEMM, copies that the claims do not count, microseconds."""
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
                delta.change,
                delta.short,
                delta.kind,
                f"{delta.before:g} -> {delta.after:g}",
                f"{delta.before_ns / 1000:.2f} -> {delta.after_ns / 1000:.2f}",
            )
            for delta in one.changes
        ]
        return table(("CHANGE", "KERNEL", "KIND", "PER CALL", "us PER CALL"), rows)
    calls = max(one.after.calls, 1)
    found = (
        (k.short, k.kind, f"{k.launches / calls:g}", f"{k.time_ns / calls / 1000:.2f}")
        for k in one.after.kernels
    )
    return table(("KERNEL", "KIND", "PER CALL", "us PER CALL"), found)
