"""A verdict on two arms' runs, and the figures it rests on."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from enum import Enum

import msgspec
import numpy as np

from overlaykit.cli import Result
from serving.command import BASELINE, CANDIDATE
from serving.evidence import Observed, reasons_against
from serving.points import Point
from serving.ratios import CODES, Array, interval, judge, rounds_to_decide
from serving.reading import Measurement

Metric = Callable[[Measurement], float]


class Verdict(Enum):
    """INVALID: the runs prove nothing, whatever their figures."""

    PASS = "pass"
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"
    INVALID = "invalid"


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """Candidate to baseline, in percent, geometric mean; more is better for
    throughput, less for times. The interval is 95 %; it is null with a single round."""

    metric: str
    percent: float
    low: float | None
    high: float | None


class PointChange(msgspec.Struct, frozen=True, kw_only=True):
    """A point's changes. P values are Holm's: of not being worse by more than the
    margin, over the points; and of being so, over points and metrics."""

    point: str
    throughput: Change
    tpot: Change
    ttft: Change
    noninferior_p: tuple[float, float]
    harm_p: tuple[float, float]


class Comparison(Result, frozen=True, kw_only=True):
    """``headline`` is over all points; TTFT in it is advisory."""

    verdict: Verdict
    rounds: int
    margin_percent: float
    alpha: float
    reasons: tuple[str, ...]
    headline: tuple[Change, ...] = ()
    points: tuple[PointChange, ...] = ()
    rounds_to_decide: int | None = None


def compare(
    runs: Sequence[Observed], points: Sequence[Point], margin: float, alpha: float
) -> Comparison:
    """``margin`` is the loss that is put up with, as a part of one."""
    against = reasons_against(runs, points)
    rounds = len({run.round for run in runs})
    if against:
        return _result(Verdict.INVALID, rounds, margin, alpha, against)
    sample = _log_ratios(runs, points, _throughput, _speed)
    ttft = _log_ratios(runs, points, _ttft)[0]
    judged = judge(sample, margin, alpha)
    verdict = Verdict(CODES[int(judged.codes)].value)
    rows = tuple(
        PointChange(
            point=str(point),
            throughput=_change("throughput", sample[0, place]),
            tpot=_change("median TPOT", -sample[1, place]),
            ttft=_change("median TTFT", ttft[place]),
            noninferior_p=tuple(judged.noninferior[:, place].tolist()),
            harm_p=tuple(judged.harm[:, place].tolist()),
        )
        for place, point in enumerate(points)
    )
    headline = (
        _change("throughput", sample[0].mean(axis=0)),
        _change("median TPOT", -sample[1].mean(axis=0)),
        _change("median TTFT", ttft.mean(axis=0)),
    )
    reasons = []
    for row in rows:
        pairs = zip((row.throughput, row.tpot), row.harm_p, strict=True)
        reasons += [
            f"{row.point}: {one.metric} is worse by more than the margin ({said(one)})"
            for one, p in pairs
            if p <= alpha
        ]
    reasons += [
        f"over all points, {one.metric} is worse ({said(one)})"
        for one, slower in zip(headline, judged.slower.tolist(), strict=False)
        if slower
    ]
    needed = None
    if verdict is Verdict.INCONCLUSIVE:
        needed = rounds_to_decide(sample, margin, alpha)
        open_ones = [row.point for row in rows if max(row.noninferior_p) > alpha]
        reasons.append(
            f"not shown to be within the margin: {', '.join(open_ones)}"
            if rounds > 1
            else "a single round has no spread to judge by"
        )
    return _result(verdict, rounds, margin, alpha, reasons, headline, rows, needed)


def _result(
    verdict: Verdict,
    rounds: int,
    margin: float,
    alpha: float,
    reasons: Sequence[str],
    headline: tuple[Change, ...] = (),
    rows: tuple[PointChange, ...] = (),
    needed: int | None = None,
) -> Comparison:
    return Comparison(
        target="serving",
        tree="",
        outcome=verdict.value,
        verdict=verdict,
        rounds=rounds,
        margin_percent=100 * margin,
        alpha=alpha,
        reasons=tuple(reasons),
        headline=headline,
        points=rows,
        rounds_to_decide=needed,
    )


def _throughput(one: Measurement) -> float:
    return one.throughput


def _speed(one: Measurement) -> float:
    """So that more is better, as for throughput."""
    return 1 / one.median_tpot_ms


def _ttft(one: Measurement) -> float:
    return one.median_ttft_ms


def _log_ratios(
    runs: Sequence[Observed], points: Sequence[Point], *metrics: Metric
) -> Array:
    """Of candidate to baseline, (metric, point, round)."""
    by_name = {(run.point, run.arm, run.round): run.measurement for run in runs}
    rounds = sorted({run.round for run in runs})
    return np.array(
        [
            [
                [
                    math.log(
                        metric(by_name[point, CANDIDATE, number])
                        / metric(by_name[point, BASELINE, number])
                    )
                    for number in rounds
                ]
                for point in points
            ]
            for metric in metrics
        ]
    )


def _change(metric: str, log_ratios: Array) -> Change:
    low, high = interval(log_ratios, 0.95)
    return Change(
        metric=metric,
        percent=_percent(log_ratios.mean()),
        low=None if math.isnan(low) else _percent(low),
        high=None if math.isnan(high) else _percent(high),
    )


def _percent(log_ratio: float) -> float:
    return round(100 * math.expm1(log_ratio), 4)


def said(one: Change) -> str:
    """As a person reads it."""
    if one.low is None or one.high is None:
        return f"{one.percent:+.2f} %"
    return f"{one.percent:+.2f} % ({one.low:+.2f} to {one.high:+.2f})"
