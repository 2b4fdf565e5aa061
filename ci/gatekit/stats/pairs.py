"""What two arms answered to the same questions, as the statistics need it.

The unit is the question. A question answered once an arm gives -1, 0 or 1; answered
several times it gives the mean of its runs' differences, so that answers to the same
question are never counted as if they were different questions.
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
        """The mean square difference; with one run an arm, the share of questions on
        which the arms differ."""
        return self._mean(2)

    @property
    def gained(self) -> float:
        """Questions gained, and lost: the counts of a single run an arm, and for
        several the pair with the same mean and the same second moment, which is all
        that the score interval depends on. No whole numbers then. (Where steps are so
        small and of one sign that there is no such pair, one of more spread.)"""
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
    """Of one run an arm, known by its counts."""
    found = ((1, gained), (0, questions - gained - lost), (-1, lost))
    return Pairs(1, tuple((step, count) for step, count in found if count))


def pair(
    baseline: Sequence[Sequence[bool]], patched: Sequence[Sequence[bool]]
) -> Pairs:
    """Of as many runs in either arm, each a sequence of outcomes in the same order."""
    if not baseline or len(baseline) != len(patched):
        raise ValueError(f"{len(baseline)} and {len(patched)} runs")
    arms = zip(_sums(baseline), _sums(patched), strict=True)
    steps = Counter(after - before for before, after in arms)
    return Pairs(len(baseline), tuple(sorted(steps.items())))


def _sums(runs: Sequence[Sequence[bool]]) -> Iterable[int]:
    return map(sum, zip(*runs, strict=True))
