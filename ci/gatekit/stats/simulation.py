"""Simulated probabilities: a check of the sums, and several runs per arm."""

from __future__ import annotations

import numpy as np

from gatekit.stats.decision import Decision, Rule, decide
from gatekit.stats.intervals import tango
from gatekit.stats.pairs import Pairs


def type_1_one_run(
    n: int, discordance: float, rule: Rule, draws: int, seed: int
) -> float:
    """How often the interval clears the margin although the true drop equals it."""
    lose = (discordance + rule.margin) / 2
    gain = discordance - lose
    random = np.random.default_rng(seed)
    counts = random.multinomial(n, (gain, lose, 1 - gain - lose), size=draws)
    found, times = np.unique(counts[:, :2], axis=0, return_counts=True)
    clears = [
        tango(float(gained), float(lost), n, rule.two_sided).lower > -rule.margin
        for gained, lost in found
    ]
    return float(times[clears].sum() / draws)


def several_runs(
    n: int,
    runs: int,
    unsteady: float,
    broken: float,
    rule: Rule,
    draws: int,
    seed: int,
) -> tuple[float, float]:
    """How often FAIL, and how often the interval clears the margin.

    A share of the questions is unsteady: right or wrong at random, in each run. The
    baseline answers the others correctly; the patch breaks a share of them, the same
    ones in every run. So the runs of a question are not independent.
    """
    random = np.random.default_rng(seed)
    fails = clears = 0
    for _ in range(draws):
        coins = random.random(n) < unsteady
        lost = ~coins & (random.random(n) < broken)
        flips = random.binomial(runs, 0.5, (2, int(coins.sum())))
        steps = np.concatenate(
            [flips[1] - flips[0], np.full(int(lost.sum()), -runs, dtype=int)]
        )
        values, times = np.unique(steps, return_counts=True)
        differences = [*zip(values.tolist(), times.tolist(), strict=True)]
        rest = n - len(steps)
        decided = decide(Pairs(runs, (*differences, (0, rest))), rule)
        fails += decided.decision is Decision.FAIL
        clears += decided.interval.lower > -rule.margin
    return fails / draws, clears / draws
