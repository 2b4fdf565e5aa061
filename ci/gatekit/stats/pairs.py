"""Paired answers of two arms to the same questions.

The unit is the question. With one run per arm a question gives -1, 0 or 1; with several
runs, the mean of their differences. So answers to one question are never counted as if
they were different questions.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Pairs:
    """Differences per question, patched minus baseline, in steps of 1 / runs."""

    runs: int
    differences: tuple[tuple[int, int], ...]  # steps, and how many questions have them

    @property
    def questions(self) -> int:
        return sum(count for _, count in self.differences)

    @property
    def estimate(self) -> float:
        """The mean difference."""
        return self._mean(1)

    @property
    def discordance(self) -> float:
        """The mean square difference; with one run per arm, the share of questions on
        which the arms differ."""
        return self._mean(2)

    @property
    def gained(self) -> float:
        """Questions gained: with one run per arm, the count. With several, ``gained``
        and ``lost`` are the numbers with the same mean and second moment, which is all
        that the score interval depends on; they need not be whole. If there are none,
        as with small steps of one sign, a pair with more spread is used."""
        return self.questions * max(self._spread + self.estimate, 0.0) / 2

    @property
    def lost(self) -> float:
        return self.questions * max(self._spread - self.estimate, 0.0) / 2

    @property
    def _spread(self) -> float:
        return max(self.discordance, abs(self.estimate))

    def _mean(self, power: int) -> float:
        total: int = sum(step**power * count for step, count in self.differences)
        return total / float(self.runs**power * self.questions)


def counted(gained: int, lost: int, questions: int) -> Pairs:
    """Pairs from the counts of one run per arm."""
    found = ((1, gained), (0, questions - gained - lost), (-1, lost))
    return Pairs(1, tuple((step, count) for step, count in found if count))


def pair(
    baseline: Sequence[Sequence[bool]], patched: Sequence[Sequence[bool]]
) -> Pairs:
    """Pairs from equally many runs per arm, each a sequence of outcomes in one
    order."""
    if not baseline or len(baseline) != len(patched):
        raise ValueError(f"{len(baseline)} and {len(patched)} runs")
    arms = zip(_sums(baseline), _sums(patched), strict=True)
    steps = Counter(after - before for before, after in arms)
    return Pairs(len(baseline), tuple(sorted(steps.items())))


def _sums(runs: Sequence[Sequence[bool]]) -> Iterable[int]:
    return map(sum, zip(*runs, strict=True))
