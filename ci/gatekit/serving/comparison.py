"""The verdict on two arms' runs, and the figures behind it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import msgspec
import numpy as np

from gatekit.records.checks import Verdict
from gatekit.serving.command import ARMS, BASELINE, PATCHED
from gatekit.serving.evidence import ObservedRun, reasons_against
from gatekit.serving.points import Point
from gatekit.serving.ratios import (
    CODES,
    Array,
    SampleVerdicts,
    interval,
    judge,
    rounds_to_decide,
)
from gatekit.serving.reading import Measurement
from gatekit.serving.results import (
    ArmRuns,
    Comparison,
    MetricDelta,
    PointDelta,
    percent_text,
)

Metric = Callable[[Measurement], float]


def compare(
    runs: Sequence[ObservedRun], points: Sequence[Point], margin: float, alpha: float
) -> Comparison:
    """``margin`` is the tolerated loss, as a fraction. If a point was not run, the
    others are still compared, and a loss at one of them is a FAIL; PASS requires every
    point."""
    against = reasons_against(runs, points)
    arms = tuple(_arm(runs, arm) for arm in ARMS)
    nothing = Comparison(
        target="serving",
        tree="",
        outcome=Verdict.INVALID.value,
        notes=(*_notes(arms), *_untagged(runs)),
        verdict=Verdict.INVALID,
        rounds=len({run.round for run in runs}),
        margin_percent=100 * margin,
        alpha=alpha,
        reasons=tuple(one.what for one in against),
        arms=arms,
        headline=(),
        points=tuple(_uncompared(runs, point) for point in points),
        rounds_to_decide=None,
    )
    return nothing if against else _decided(nothing, runs, points)


def _decided(
    nothing: Comparison, runs: Sequence[ObservedRun], points: Sequence[Point]
) -> Comparison:
    margin, alpha = nothing.margin_percent / 100, nothing.alpha
    there = {run.point for run in runs}
    compared = [point for point in points if point in there]
    sample = _log_ratios(runs, compared, _throughput, _speed)
    ttft = _log_ratios(runs, compared, _ttft)[0]
    judged = judge(sample, margin, alpha)
    found = {
        str(point): PointDelta(
            point=str(point),
            outcome="compared",
            rounds=nothing.rounds,
            throughput=_judged(
                _change("throughput", sample[0, place]), judged, (0, place), alpha
            ),
            tpot=_judged(
                _change("median TPOT", -sample[1, place]), judged, (1, place), alpha
            ),
            ttft=_change("median TTFT", ttft[place]),
        )
        for place, point in enumerate(compared)
    }
    rows = tuple(found.get(row.point, row) for row in nothing.points)
    slower = judged.slower.tolist()
    headline = (
        _overall(_change("throughput", sample[0].mean(axis=0)), slower[0]),
        _overall(_change("median TPOT", -sample[1].mean(axis=0)), slower[1]),
        _change("median TTFT", ttft.mean(axis=0)),
    )
    verdict = Verdict(CODES[int(judged.codes)].value)
    reasons = list(_losses(rows, headline))
    needed = None
    if verdict is Verdict.INCONCLUSIVE:
        reasons.append(_undecided(rows, nothing.rounds))
    if lacking := [row.point for row in rows if row.outcome == "not run"]:
        reasons.append(f"not run: {', '.join(lacking)}")
        verdict = Verdict.FAIL if verdict is Verdict.FAIL else Verdict.INCONCLUSIVE
    elif verdict is Verdict.INCONCLUSIVE:
        needed = rounds_to_decide(sample, margin, alpha)
    return msgspec.structs.replace(
        nothing,
        outcome=verdict.value,
        verdict=verdict,
        reasons=tuple(reasons),
        headline=headline,
        points=rows,
        rounds_to_decide=needed,
    )


def _losses(
    rows: Sequence[PointDelta], headline: Sequence[MetricDelta]
) -> Iterator[str]:
    """The reasons for a FAIL."""
    for row in rows:
        for one in row.judged:
            if one.decision == "worse":
                yield (
                    f"{row.point}: {one.metric} is worse by more than the margin "
                    f"({percent_text(one)})"
                )
    for one in headline:
        if one.decision == "worse":
            yield (
                f"over all points compared, {one.metric} is worse ({percent_text(one)})"
            )


def _undecided(rows: Sequence[PointDelta], rounds: int) -> str:
    if rounds == 1:
        return "one round alone has no spread, so nothing can be decided"
    undecided = [
        row.point
        for row in rows
        if any(one.decision != "non-inferior" for one in row.judged)
    ]
    return f"not shown to be within the margin: {', '.join(undecided)}"


def _uncompared(runs: Sequence[ObservedRun], point: Point) -> PointDelta:
    here = [run for run in runs if run.point == point]
    rounds = [{run.round for run in here if run.arm == arm} for arm in ARMS]
    return PointDelta(
        point=str(point),
        outcome="not compared" if here else "not run",
        rounds=len(set.intersection(*rounds)),
    )


def _judged(
    one: MetricDelta, judged: SampleVerdicts, place: tuple[int, int], alpha: float
) -> MetricDelta:
    noninferior = float(judged.noninferior[place])
    harm = float(judged.harm[place])
    shown = "non-inferior" if noninferior <= alpha else "not shown"
    return msgspec.structs.replace(
        one,
        noninferior_p=noninferior,
        harm_p=harm,
        decision="worse" if harm <= alpha else shown,
    )


def _overall(one: MetricDelta, slower: bool) -> MetricDelta:
    return msgspec.structs.replace(one, decision="worse" if slower else None)


def _arm(runs: Sequence[ObservedRun], arm: str) -> ArmRuns:
    mine = [run for run in runs if run.arm == arm]
    of = {run.origin for run in mine}
    return ArmRuns(
        arm=arm,
        runs=len(mine),
        failed_attempts=sum(run.failed_attempts for run in mine),
        hosts=tuple(sorted({run.host for run in mine if run.host})),
        origin=of.pop() if len(of) == 1 else None,
    )


def _notes(arms: Sequence[ArmRuns]) -> Iterator[str]:
    for arm in arms:
        if arm.origin and not arm.origin.series:
            yield f"{arm.arm}: the series is not recorded"
        if arm.failed_attempts:
            yield (
                f"{arm.arm}: {arm.failed_attempts} attempts at a run measured nothing "
                "(a server or a client died) and were repeated; see raw/*.failed-*.log"
            )


def _untagged(runs: Sequence[ObservedRun]) -> Iterator[str]:
    for arm in ARMS:
        count = sum(run.arm == arm and run.measurement.tag is None for run in runs)
        if count:
            yield (
                f"{arm}: {count} outputs are not from `bench.py run`: seed, warm-up "
                "and cache flush are taken on trust"
            )


def _throughput(one: Measurement) -> float:
    return one.throughput


def _speed(one: Measurement) -> float:
    """Inverted, so that larger is better, as for throughput."""
    return 1 / one.median_tpot_ms


def _ttft(one: Measurement) -> float:
    return one.median_ttft_ms


def _log_ratios(
    runs: Sequence[ObservedRun], points: Sequence[Point], *metrics: Metric
) -> Array:
    """Log-ratios of patched to baseline, with axes (metric, point, round)."""
    by_name = {(run.point, run.arm, run.round): run.measurement for run in runs}
    rounds = sorted({run.round for run in runs})
    return np.array(
        [
            [
                [
                    math.log(
                        metric(by_name[point, PATCHED, number])
                        / metric(by_name[point, BASELINE, number])
                    )
                    for number in rounds
                ]
                for point in points
            ]
            for metric in metrics
        ]
    )


def _change(metric: str, log_ratios: Array) -> MetricDelta:
    low, high = interval(log_ratios, 0.95)
    return MetricDelta(
        metric=metric,
        percent=_percent(log_ratios.mean()),
        low=None if math.isnan(low) else _percent(low),
        high=None if math.isnan(high) else _percent(high),
    )


def _percent(log_ratio: float) -> float:
    return round(100 * math.expm1(log_ratio), 4)
