"""The benchmark section: throughput and token times, point by point."""

from __future__ import annotations

from gatekit.report.charts import Bound, Estimate, estimates
from gatekit.report.documents import PointRatios, Ratio, Serving
from gatekit.report.evidence import Kind, find_evidence, not_run, stands_in
from gatekit.report.schema import GateReport, StageReport, StageState
from gatekit.report.section import (
    Drawing,
    Mark,
    Section,
    Table,
    Text,
    mark,
    origins,
    verdict_mark,
)

_KIND = Kind("bench", "margin_percent", Serving, "comparison of the points")
_STAGE, _PREFIX = "bench", "bench:"
_COMPARED = "compared"


def serving(report: GateReport) -> Section:
    """The section, with every point that has a stage or a row in the comparison."""
    seen = find_evidence(report, _STAGE, _KIND)
    stages = {
        stage.name.removeprefix(_PREFIX): stage
        for stage in report.stages
        if stage.name.startswith(_PREFIX)
    }
    # The comparison itself runs no server; the stages of the points did.
    all_of_them = [*([seen.stage] if seen.stage else []), *stages.values()]
    stand_ins = dict.fromkeys(filter(None, map(stands_in, all_of_them)))
    said: list[str] = []
    drawings: list[Drawing] = []
    tables = [_states(report, tuple(stages))] if stages else []
    missing: list[str] = []
    for one in seen.found:
        rows = {row.point: row for row in one.points if _ran(stages.get(row.point))}
        points = list(dict.fromkeys([*stages, *rows]))
        said += [_said(one), *one.reasons]
        tables.append(_ratios(one, [rows.get(name) for name in points], points))
        if one.arms:
            tables.append(origins(one.arms))
        if one.rounds_to_decide:
            said.append(f"A decision would need {one.rounds_to_decide} rounds in all.")
        if any(row.outcome == _COMPARED for row in rows.values()):
            drawings += _drawings(one, [(name, rows.get(name)) for name in points])
        else:
            missing.append("No ratios: none of the points can be compared.")
    title, by = "Serving benchmark", "; ".join(stand_ins)
    return seen.section("bench", title, said, tables, drawings, missing, by)


def _ran(stage: StageReport | None) -> bool:
    """Whether the point ran; it may have run elsewhere, without a stage here."""
    return stage is None or stage.state is not StageState.NOT_RUN


def _states(report: GateReport, points: tuple[str, ...]) -> Table:
    rows: list[tuple[Text, ...]] = []
    for point in points:
        stage = report.stage(_PREFIX + point)
        state = mark(stage.state if stage else StageState.NOT_RUN)
        run = stage is not None and stage.state is not StageState.NOT_RUN
        why = stage.reason or "-" if stage and run else not_run(point, stage)
        rows.append((point, state, why))
    header = ("point", "state", "why")
    passed = {state for _, state, _ in rows} == {mark(StageState.PASS)}
    return Table("Runs of the points", header, tuple(rows), folded=passed)


def _said(one: Serving) -> str:
    return (
        f"Patched relative to baseline: geometric means of {one.rounds} rounds, 95 % "
        f"intervals; the margin is {one.margin_percent:g} %. Verdict of the "
        f"comparison: {verdict_mark(one.verdict).text}."
    )


def _ratios(one: Serving, rows: list[PointRatios | None], points: list[str]) -> Table:
    header = (
        "point", "throughput", "decided", "median TPOT", "decided",
        "median TTFT (advisory)",
    )  # fmt: skip
    lines = [(point, *_cells(row)) for point, row in zip(points, rows, strict=True)]
    if one.headline:
        by_name = {ratio.metric.rpartition(" ")[2]: ratio for ratio in one.headline}
        picked = [by_name.get(name) for name in ("throughput", "TPOT", "TTFT")]
        lines.append(("all", *_figures(*picked)))
    caption = "Patched relative to baseline"
    return Table(caption, header, tuple(lines), (1, 3, 5), brief=True)


def _cells(row: PointRatios | None) -> tuple[Text, ...]:
    if row is None or row.outcome != _COMPARED:
        return (Mark(row.outcome if row else "not run", "absent"), *("-",) * 4)
    return _figures(row.throughput, row.tpot, row.ttft)


def _figures(
    throughput: Ratio | None, tpot: Ratio | None, ttft: Ratio | None
) -> tuple[Text, ...]:
    return (
        _ratio(throughput), _decision(throughput), _ratio(tpot), _decision(tpot),
        _ratio(ttft),
    )  # fmt: skip


def _ratio(one: Ratio | None) -> str:
    if one is None:
        return "-"
    if one.low is None or one.high is None:
        return f"{one.percent:+.2f} %, no interval"
    return f"{one.percent:+.2f} % ({one.low:+.2f} to {one.high:+.2f})"


def _decision(one: Ratio | None) -> Text:
    kinds = {"non-inferior": "good", "worse": "bad", "not shown": "unsure"}
    if one is None or one.decision is None:
        return "-"
    return Mark(one.decision, kinds.get(one.decision, "unsure"))


def _drawings(
    one: Serving, rows: list[tuple[str, PointRatios | None]]
) -> list[Drawing]:
    """One chart for throughput and one for time per token. Throughput may fall by the
    margin at most; a time may rise by what the same loss of speed causes."""
    loss = one.margin_percent
    rise = 100 * (1 / (1 - loss / 100) - 1)
    found = []
    for what, at in (("throughput", -loss), ("tpot", rise)):
        estimated = [_estimate(name, row, what) for name, row in rows]
        bounds = [Bound(at, "margin", limit=True), Bound(0.0, "equal")]
        names = {"throughput": "Throughput", "tpot": "Median time per output token"}
        better = "more is better" if what == "throughput" else "less is better"
        caption = f"{names[what]}, patched relative to baseline; {better}"
        found.append(Drawing(caption, estimates(estimated, bounds, "%", caption)))
    return found


def _estimate(name: str, row: PointRatios | None, what: str) -> Estimate:
    ratio: Ratio | None = getattr(row, what) if row else None
    if ratio is None:
        return Estimate(name, None, label=row.outcome if row else "not run")
    label = f"{ratio.percent:+.2f} %"
    return Estimate(name, ratio.percent, ratio.low, ratio.high, label)
