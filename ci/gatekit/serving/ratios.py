"""Inference on paired log-ratios; the run is the unit.

The thousands of requests of a run share its server start, clocks and temperature, so
they do not show how the next run would differ. So a run gives one number per metric, a
pair of runs (one per arm, same point, same round) gives one log-ratio, and the spread
between rounds is the error. Arrays are (..., metric, point, round); a log-ratio above 0
is an improvement.

Student's t is from scipy.special, which loads four times as fast as scipy.stats.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from scipy.special import stdtr, stdtrit

from gatekit.stats.decision import Decision

# The largest number of rounds that is planned.
_MOST_ROUNDS = 1000

Array = Any


# A decision is stored in arrays as its index here.
CODES = tuple(Decision)


class SampleVerdicts(NamedTuple):
    """P values, adjusted by Holm's method: for non-inferiority over the points of a
    metric, for harm over all points and metrics."""

    noninferior: Array
    harm: Array
    slower: Array
    codes: Array


def holm(p: Array) -> Array:
    """Adjusted p values along the last axis (Holm 1979). Rejecting all that are at most
    alpha makes the probability of any false rejection at most alpha."""
    p = np.asarray(p, dtype=float)
    order = np.argsort(p, axis=-1)
    factors = np.arange(p.shape[-1], 0, -1)
    stepped = np.take_along_axis(p, order, axis=-1) * factors
    stepped = np.minimum(np.maximum.accumulate(stepped, axis=-1), 1.0)
    adjusted = np.empty_like(stepped)
    np.put_along_axis(adjusted, order, stepped, axis=-1)
    return adjusted


def statistic(sample: Array, bound: float) -> Array:
    """Student's t of a mean against a bound, along the last axis. NaN without
    spread."""
    n = sample.shape[-1]
    if n < 2:
        return np.full(sample.shape[:-1], np.nan)
    # Rounding leaves about this much spread between equal numbers.
    spread = sample.std(axis=-1, ddof=1)
    level = np.abs(sample).max(axis=-1)
    spread = np.where(spread > 1e-12 * level, spread, np.nan)
    return (sample.mean(axis=-1) - bound) * np.sqrt(n) / spread


def interval(sample: Array, level: float) -> tuple[Array, Array]:
    """The t interval of the mean along the last axis; NaN if it is undefined."""
    n = sample.shape[-1]
    mean = sample.mean(axis=-1)
    if n < 2:
        return np.full_like(mean, np.nan), np.full_like(mean, np.nan)
    half = stdtrit(n - 1, (1 + level) / 2) * sample.std(axis=-1, ddof=1) / np.sqrt(n)
    return mean - half, mean + half


def judge(sample: Array, margin: float, alpha: float) -> SampleVerdicts:
    """FAIL if any point is shown to be worse by more than the margin, or the mean over
    all points to be worse at all; PASS if every point is shown not to be worse by more
    than the margin, in every metric; otherwise INCONCLUSIVE. FAIL wins."""
    df = max(sample.shape[-1] - 1, 1)
    t = statistic(sample, np.log1p(-margin))
    noninferior = holm(np.nan_to_num(stdtr(df, -t), nan=1.0))
    worse = np.nan_to_num(stdtr(df, t), nan=1.0)
    harm = holm(worse.reshape(*worse.shape[:-2], -1)).reshape(worse.shape)
    # The mean over points per round, because runs of one round are not independent;
    # alpha is split between the metrics.
    overall = stdtr(df, statistic(sample.mean(axis=-2), 0.0))
    slower = np.nan_to_num(overall, nan=1.0) <= alpha / sample.shape[-3]
    fails = (harm <= alpha).any(axis=(-2, -1)) | slower.any(axis=-1)
    passes = (noninferior <= alpha).all(axis=(-2, -1))
    codes = np.where(
        fails,
        CODES.index(Decision.FAIL),
        np.where(
            passes, CODES.index(Decision.PASS), CODES.index(Decision.INCONCLUSIVE)
        ),
    )
    return SampleVerdicts(noninferior, harm, slower, codes)


def rounds_to_decide(sample: Array, margin: float, alpha: float) -> int | None:
    """The total number of rounds that would decide if means and spreads stayed the
    same: all points non-inferior, or one worse. None if it is above 1,000, or without
    spread. Uses Bonferroni's bound, so never fewer than Holm needs."""
    metrics, points, n = sample.shape
    t = statistic(sample, np.log1p(-margin))
    if n < 2 or np.isnan(t).any():
        return None
    per_root = (t / np.sqrt(n)).ravel()
    totals = np.arange(n + 1, _MOST_ROUNDS + 1)
    roots = np.sqrt(totals)
    to_pass = stdtrit(totals - 1, 1 - alpha / points)
    to_fail = stdtrit(totals - 1, 1 - alpha / (points * metrics))
    decided = (per_root.min() * roots >= to_pass) | (-per_root.min() * roots >= to_fail)
    return int(totals[decided.argmax()]) if decided.any() else None
