"""Intervals of a difference between paired proportions.

Tango's score interval (Tango 1998, Statistics in Medicine 17, 891-908) decides: it
keeps its level if few pairs differ, as here, and does not need the concordant counts.
Newcombe's interval (method 10 of Newcombe 1998, Statistics in Medicine 17, 2635-2650)
is constructed differently and serves as a check.

Differences are patched minus baseline: ``gained`` of ``n`` pairs are right in the
patched arm alone, ``lost`` in the baseline alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import copysign, sqrt
from typing import Any

import numpy as np
from scipy.optimize import brentq
from scipy.special import ndtri


@dataclass(frozen=True)
class Interval:
    lower: float
    upper: float
    level: float


def score_z(gained: Any, lost: Any, n: Any, difference: float) -> Any:
    """Tango's statistic for a hypothetical difference; accepts numbers or arrays.

    The variance is that of the most likely probabilities with this difference. If it is
    0, the data either match the hypothesis exactly or contradict it.
    """
    gained, lost = np.asarray(gained, float), np.asarray(lost, float)
    linear = (2 * n - gained + lost) * difference - (gained + lost)
    constant = lost * difference * (1 - difference)
    root = np.sqrt(np.maximum(linear**2 + 8 * n * constant, 0))
    only_lost = np.maximum((root - linear) / (4 * n), np.maximum(0, -difference))
    spread = np.sqrt(n * np.maximum(2 * only_lost + difference * (1 - difference), 0))
    off = gained - lost - n * difference
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(np.abs(off) < 1e-9 * n, 0.0, off / spread)


def tango(gained: float, lost: float, n: int, level: float) -> Interval:
    """The differences that a two-sided score test at 1 - level does not reject.

    The counts may be means over runs, off by rounding.
    """
    rounding = 1e-9 * n
    if n < 1 or min(gained, lost) < -rounding or gained + lost > n + rounding:
        raise ValueError(f"{gained} gained and {lost} lost of {n}")
    quantile = float(ndtri((1 + level) / 2))
    estimate = (gained - lost) / n

    def end(side: float) -> float:
        """The difference at which the statistic, which decreases, reaches the
        quantile."""
        if estimate == side:
            return side
        return float(
            brentq(
                lambda at: score_z(gained, lost, n, at) + copysign(quantile, side),
                estimate,
                side * (1 - 1e-12),
                xtol=1e-13,
            )
        )

    return Interval(end(-1.0), end(1.0), level)


def wilson(successes: float, n: int, level: float) -> Interval:
    """Wilson's score interval of one proportion."""
    z = float(ndtri((1 + level) / 2))
    centre = (successes + z * z / 2) / (n + z * z)
    half = z * sqrt(successes * (n - successes) / n + z * z / 4) / (n + z * z)
    return Interval(max(0.0, centre - half), min(1.0, centre + half), level)


def newcombe(both: int, gained: int, lost: int, neither: int, level: float) -> Interval:
    """Combine Wilson's intervals of the two proportions by squares, reduced by their
    correlation, which is continuity-corrected if positive."""
    n = both + gained + lost + neither
    patched, baseline = both + gained, both + lost
    product: float = both * neither - gained * lost
    if product > 0:
        product = max(product - n / 2, 0)
    margins = patched * (n - patched) * baseline * (n - baseline)
    phi = product / sqrt(margins) if margins else 0.0
    estimate = (gained - lost) / n
    one, other = wilson(patched, n, level), wilson(baseline, n, level)

    def reach(up: float, down: float) -> float:
        return sqrt(max(up * up - 2 * phi * up * down + down * down, 0))

    rate, other_rate = patched / n, baseline / n
    return Interval(
        estimate - reach(rate - one.lower, other.upper - other_rate),
        estimate + reach(one.upper - rate, other_rate - other.lower),
        level,
    )
