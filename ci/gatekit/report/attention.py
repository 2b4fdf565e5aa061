"""The traces section: copies and time in each layer's attention, before and after."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from gatekit.report.charts import by_layer
from gatekit.report.documents import Figures, Side, Traced
from gatekit.report.evidence import Kind, find_evidence
from gatekit.report.layer_timeline import one_layer
from gatekit.report.schema import GateReport
from gatekit.report.section import (
    Drawing,
    Mark,
    Section,
    Table,
    Text,
    claims,
    controls,
    value_range,
    verdict_mark,
)

_KIND = Kind("trace_check", "after", Traced, "judged trace")
_DRAWN: tuple[tuple[str, str, Callable[[Figures], float]], ...] = (
    ("Copies of scales in each layer's attention", "copies", lambda f: f.copies),
    ("Kernel time of each layer's attention", "µs", lambda f: f.time_ns / 1000),
)


def attention(report: GateReport) -> Section:
    """The section. All traces are in the table; one is drawn, the first that does not
    pass."""
    seen = find_evidence(report, "traces", _KIND)
    compared = [one for one in seen.found if one.before is not None]
    alone = [one for one in seen.found if one.before is None]
    missing: list[str] = []
    said: list[str] = []
    drawings: list[Drawing] = []
    tables: list[Table] = []
    if seen.found and not compared:
        missing.append("No comparison: no trace was compared with a baseline.")
    if compared:
        shown = next((one for one in compared if one.verdict != "pass"), compared[0])
        tables.append(_traces(compared))
        if shown.sides is None:
            missing.append("No figures: these traces are not valid evidence.")
        else:
            said.append(_what(shown))
            drawings += _drawings(shown)
            drawn, why_not = one_layer(shown)
            drawings += drawn
            missing += why_not
            tables += [claims("Claims", shown.claims), _changes(shown)]
        tables += controls(shown.controls)
    for one in alone:
        tables.append(claims(f"Not compared: {one.tree}", one.claims))
        tables += controls(one.controls, f" of {one.tree}")
    title = "Copies and time in each layer's attention"
    return seen.section("attention", title, said, tables, drawings, missing)


def _what(one: Traced) -> str:
    gpu = one.after.gpu or "a GPU that the trace does not name"
    return (
        f"{one.target} on {gpu}, {len(one.after.layers)} layers; kernels attributed to "
        f"layers by {one.after.method}. The drawings show {one.tree}."
    )


def _traces(found: Sequence[Traced]) -> Table:
    rows = [
        (one.tree.rpartition("/")[2], verdict_mark(one.verdict), *_figures(one))
        for one in found
    ]
    header = (
        "trace", "verdict", "layers", "copies per layer, before", "copies, after",
        "µs per layer, before", "µs, after", "change",
    )  # fmt: skip
    return Table("Traces", header, tuple(rows), tuple(range(2, 8)), brief=True)


def _figures(one: Traced) -> tuple[Text, ...]:
    if one.sides is None:
        return (Mark("no evidence", "absent"),) * 6
    before, after = one.sides
    mean = [side.total_ns / len(side.layers) for side in one.sides]
    return (
        value_range([len(before.layers), len(after.layers)]),
        *(value_range([x.per_call.copies for x in side.layers]) for side in one.sides),
        *(_times(side) for side in one.sides),
        f"{mean[1] / mean[0] - 1:+.1%}",
    )


def _times(side: Side) -> str:
    return value_range([layer.per_call.time_ns / 1000 for layer in side.layers], ".1f")


def _drawings(one: Traced) -> list[Drawing]:
    found = []
    for caption, unit, value in _DRAWN:
        before, after = (
            {layer.layer: value(layer.per_call) for layer in side.layers}
            for side in one.sides or ()
        )
        found.append(Drawing(caption, by_layer(before, after, unit, caption)))
    return found


def _changes(one: Traced) -> Table:
    rows = [
        (
            c.change,
            c.short,
            c.kind,
            f"{c.before:g} → {c.after:g}",
            f"{c.before_ns / 1000:.2f} → {c.after_ns / 1000:.2f}",
        )
        for c in one.changes
    ]
    header = ("", "kernel", "kind", "launches per call", "µs per call")
    return Table("Kernels, per call", header, tuple(rows), (3, 4))
