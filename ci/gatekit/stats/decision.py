"""Decide a paired comparison: pass, fail, or inconclusive.

Two tests with different burdens of proof. FAIL needs proof of harm; PASS needs proof
that any harm is below a margin. If neither is shown, the comparison is inconclusive. If
both are shown (a small but certain harm), it is a FAIL.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np
from scipy.special import ndtri

from gatekit.stats.harm import harm_p, mcnemar_harm_p
from gatekit.stats.intervals import Interval, score_z, tango
from gatekit.stats.pairs import Pairs

MOST_FURTHER = 1_000_000


class Decision(Enum):
    PASS = "pass"
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"


@dataclass(frozen=True)
class Rule:
    """The margin as a proportion, and the one-sided level of both tests."""

    margin: float
    level: float = 0.05

    @property
    def two_sided(self) -> float:
        """The level of the interval whose lower end is the non-inferiority test."""
        return 1 - 2 * self.level

    @property
    def quantile(self) -> float:
        return float(ndtri(1 - self.level))


@dataclass(frozen=True)
class PairedDecision:
    decision: Decision
    interval: Interval
    harm_p: float
    further: int | None  # more questions needed; None if decided, or above MOST_FURTHER


def decide(pairs: Pairs, rule: Rule) -> PairedDecision:
    interval = tango(pairs.gained, pairs.lost, pairs.questions, rule.two_sided)
    p = harm_p(pairs)
    decision = Decision.INCONCLUSIVE
    if p <= rule.level:
        decision = Decision.FAIL
    elif interval.lower > -rule.margin:
        decision = Decision.PASS
    undecided = decision is Decision.INCONCLUSIVE
    return PairedDecision(
        decision, interval, p, further(pairs, rule) if undecided else None
    )


def outcomes(gained: Any, lost: Any, n: int, rule: Rule) -> tuple[Any, Any]:
    """FAIL and PASS for arrays of counts, with one run per arm."""
    fails = mcnemar_harm_p(gained, lost) <= rule.level
    passes = score_z(gained, lost, n, -rule.margin) > rule.quantile
    return fails, passes & ~fails


def further(pairs: Pairs, rule: Rule) -> int | None:
    """The approximate number of additional questions that would decide, if the rates
    stay the same.

    Rounded counts make the decision flicker near its border; the first total that
    decides is returned.
    """
    n = pairs.questions
    totals = np.unique(np.geomspace(n + 1, n + MOST_FURTHER, 4000).astype(int))
    shares = totals / n
    gained, lost = np.rint(pairs.gained * shares), np.rint(pairs.lost * shares)
    fails = mcnemar_harm_p(gained, lost) <= rule.level
    exact = score_z(pairs.gained * shares, pairs.lost * shares, totals, -rule.margin)
    decided = np.flatnonzero(fails | (exact > rule.quantile))
    return int(totals[decided[0]]) - n if decided.size else None
