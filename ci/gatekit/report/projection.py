"""The chain section: copies in each design of the attention chain, and measured
times."""

from __future__ import annotations

from gatekit.records.checks import Check
from gatekit.report.charts import Bound, Estimate, estimates
from gatekit.report.documents import Cell, Chain, Row
from gatekit.report.evidence import Kind, find_evidence
from gatekit.report.schema import GateReport
from gatekit.report.section import Drawing, Section, Table, Text, claims, controls

_KIND = Kind("microbench", "cells", Chain, "table of designs")
_PIN, _SERIES, _BOUND = "pristine", "series", "bound"
_NONE = "not timed"


def chain(report: GateReport) -> Section:
    """The section. It shows graph replays, which is how a decode step runs."""
    seen = find_evidence(report, "chain", _KIND)
    said, drawings, tables = [], [], []
    stand_ins = [seen.stands_in] if seen.stands_in else []
    for one in seen.found:
        with_ = ", ".join(f"{k} {v}" for k, v in one.ran_with.items())
        said.append(f"{one.tree} and {one.aiter}; {with_}.")
        stand_ins.append(f"for CK's GEMM: {one.gemm}")
        tables.append(_cells(one.cells))
        tables.append(claims("Claims", _checks(one, control=False)))
        tables += controls(_checks(one, control=True))
        if timed := [_estimate(cell) for cell in one.cells if _time(cell) is not None]:
            what = "Time of a layer's chain, the series relative to the pin"
            drawing = estimates(timed, [Bound(0.0, "the pin")], "%", what)
            drawings.append(Drawing(what, drawing))
        else:
            said.append("Copies were counted and bits compared; no times were taken.")
    by = "; ".join(dict.fromkeys(stand_ins))
    title = "The attention chain alone"
    return seen.section("chain", title, said, tables, drawings, stands_in=by)


def _checks(one: Chain, control: bool) -> list[Check]:
    return [
        Check(claim.what, "", claim.found, claim.holds)
        for claim in one.claims
        if claim.control == control
    ]


def _time(cell: Cell) -> float | None:
    row = cell.row(_SERIES)
    return row.time.to_pristine if row and row.time else None


def _estimate(cell: Cell) -> Estimate:
    ratio = _time(cell)
    percent = None if ratio is None else 100 * (ratio - 1)
    label = _NONE if percent is None else f"{percent:+.1f} %"
    name = f"{cell.shape.partition(' ')[0]} M={cell.m}"
    return Estimate(name, percent, label=label)


def _cells(cells: tuple[Cell, ...]) -> Table:
    header = (
        "shape", "M", "copies per layer, pin", "series", "µs per layer, pin", "series",
        "series to pin", "to the bound",
    )  # fmt: skip
    return Table(
        "Replayed, per layer",
        header,
        tuple(map(_row, cells)),
        tuple(range(1, 8)),
        brief=True,
    )


def _ratio(value: float | None) -> str:
    return _NONE if value is None else f"{value:.3f}"


def _row(cell: Cell) -> tuple[Text, ...]:
    pin, series = cell.row(_PIN), cell.row(_SERIES)
    time = series.time if series else None
    ratios = (
        _ratio(time.to_pristine if time else None),
        _ratio(time.to_bound if time else None),
    )
    times = [_micro(row) for row in (pin, series)]
    copies = [f"{row.copies:g}" if row else "not run" for row in (pin, series)]
    return (cell.shape, str(cell.m), *copies, *times, *ratios)


def _micro(row: Row | None) -> str:
    return f"{row.time.median_us:.2f}" if row and row.time else _NONE
