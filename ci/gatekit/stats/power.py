"""What a comparison of n questions can show, by summing over all possible counts.

Nothing is random: with one run per arm, the counts gained and lost are two cells of a
multinomial, and the decision is a function of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import msgspec
import numpy as np
from scipy.optimize import brentq
from scipy.stats import binom

from gatekit.stats.decision import Rule, outcomes
from gatekit.stats.intervals import score_z

# Counts beyond this many standard deviations are ignored.
_REACH = 7


@dataclass(frozen=True)
class Chances:
    """Probabilities of FAIL and PASS; the rest is INCONCLUSIVE. ``non_inferior`` is the
    probability that the interval alone clears the margin."""

    fails: float
    passes: float
    non_inferior: float


class Detectable(msgspec.Struct, frozen=True, kw_only=True):
    """What a comparison can show, in proportions of the questions.

    ``type_1`` is the probability that the interval clears the margin although the true
    drop equals it; None if too few questions differ for such a drop.
    """

    questions: int
    discordance: float
    margin: float
    passes_if_equal: float
    fails_if_equal: float
    fails_at_1_point: float | None
    fails_at_margin: float | None
    type_1: float | None
    drop_found: float | None  # smallest drop that FAILs with a probability of 80 %


def chances(n: int, discordance: float, difference: float, rule: Rule) -> Chances:
    """The probabilities for a true discordance and difference, patched minus
    baseline."""
    if not abs(difference) <= discordance <= 1:
        raise ValueError(f"a difference of {difference} at {discordance} discordant")
    gained, lost, weight = _counts(n, discordance, difference)
    fails, passes = outcomes(gained, lost, n, rule)
    alone = score_z(gained, lost, n, -rule.margin) > rule.quantile
    total = weight.sum()
    return Chances(
        *(float(weight[kind].sum() / total) for kind in (fails, passes, alone))
    )


@lru_cache(maxsize=64)
def _counts(
    n: int, discordance: float, difference: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Likely counts and their probabilities: discordant questions, then the lost ones
    among them."""
    centre = n * discordance
    reach = _REACH * np.sqrt(centre * (1 - discordance)) + _REACH
    differ = np.arange(max(0, int(centre - reach)), min(n, int(centre + reach)) + 1)
    lost: Any = np.arange(differ[-1] + 1)
    pairs: Any
    pairs, lost = np.meshgrid(differ, lost, indexing="ij")
    there = lost <= pairs
    pairs, lost = pairs[there], lost[there]
    share = (discordance - difference) / (2 * discordance)
    weight = binom.pmf(pairs, n, discordance) * binom.pmf(lost, pairs, share)
    return pairs - lost, lost, weight


def drop_found(n: int, discordance: float, rule: Rule, chance: float) -> float | None:
    """The smallest true drop that FAILs with this probability; None if none does."""

    def lacking(drop: float) -> float:
        return chances(n, discordance, -drop, rule).fails - chance

    if lacking(discordance) < 0:
        return None
    return float(brentq(lacking, 0.0, discordance, xtol=1e-5))


def detectable(n: int, discordance: float, rule: Rule) -> Detectable:
    equal = chances(n, discordance, 0.0, rule)

    def at(drop: float) -> Chances | None:
        return chances(n, discordance, -drop, rule) if drop <= discordance else None

    point, margin = at(0.01), at(rule.margin)
    return Detectable(
        questions=n,
        discordance=discordance,
        margin=rule.margin,
        passes_if_equal=equal.passes,
        fails_if_equal=equal.fails,
        fails_at_1_point=point.fails if point else None,
        fails_at_margin=margin.fails if margin else None,
        type_1=margin.non_inferior if margin else None,
        drop_found=drop_found(n, discordance, rule, 0.8),
    )
