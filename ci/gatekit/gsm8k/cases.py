"""The rule applied to published scores.

The incident (SGLang 31490): ranges of scores before and after, all at or above a fixed
gate of 0.91; every combination of their ends is a case. The claim (SGLang 24476): two
scores of 1,200 questions, called "within noise". Neither published answers per
question, so the number of questions on which the arms differ is assumed.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import ceil, sqrt

import msgspec
from scipy.special import ndtr

from gatekit.stats.decision import Rule, decide
from gatekit.stats.pairs import counted

INCIDENT = tuple(
    (before, after) for before in (0.925, 0.931) for after in (0.912, 0.910)
)
CLAIM = (0.948, 0.943)


class Case(msgspec.Struct, frozen=True, kw_only=True):
    what: str
    questions: int
    before: float
    after: float
    discordance: float
    margin: float
    unpaired_p: float
    harm_p: float
    lower: float
    upper: float
    decision: str
    further: int | None


def published() -> Iterator[Case]:
    for before, after in INCIDENT:
        for discordance in (0.03, 0.04, 0.06):
            yield case("incident", 1319, before, after, discordance, Rule(0.015))
    for discordance in (0.01, 0.02, 0.03, 0.04, 0.05, 0.06):
        yield case("claim", 1200, *CLAIM, discordance, Rule(0.01))


def case(
    what: str, n: int, before: float, after: float, discordance: float, rule: Rule
) -> Case:
    gained, lost = split(n, before, after, discordance)
    decided = decide(counted(gained, lost, n), rule)
    return Case(
        what=what,
        questions=n,
        before=before,
        after=after,
        discordance=discordance,
        margin=rule.margin,
        unpaired_p=unpaired_p(round(before * n), round(after * n), n),
        harm_p=decided.harm_p,
        lower=decided.interval.lower,
        upper=decided.interval.upper,
        decision=decided.decision.value,
        further=decided.further,
    )


def split(n: int, before: float, after: float, discordance: float) -> tuple[int, int]:
    """Questions gained and lost, for the given scores and at least this discordance."""
    drop = round(before * n) - round(after * n)
    gained = ceil((discordance * n - drop) / 2)
    return gained, gained + drop


def unpaired_p(before: int, after: int, n: int) -> float:
    """The p value from the two scores alone: one-sided, pooled."""
    pooled = (before + after) / (2 * n)
    return float(ndtr((after - before) / n / sqrt(2 * pooled * (1 - pooled) / n)))
