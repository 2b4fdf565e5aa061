"""Is the patched arm worse? McNemar's test, exact, one-sided.

With one run an arm the questions lost, among those on which the arms differ, are
binomial with probability 1/2 if the arms are alike. With several runs the differences
have sizes too, and then it is the exact test of randomly flipped signs, of which
McNemar's is the case of one size.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
from scipy.stats import binom

from gatekit.stats.pairs import Pairs


def harm_p(pairs: Pairs) -> float:
    """The chance, if the arms are alike, of at least as much lost on balance."""
    sizes: Counter[int] = Counter()
    for step, count in pairs.differences:
        if step:
            sizes[abs(step)] += count
    balance = -sum(step * count for step, count in pairs.differences)
    # How much was lost in all, in steps: a sum of size x binomial, one for each size.
    lost = np.ones(1)
    for size, count in sizes.items():
        one = np.zeros(size * count + 1)
        one[::size] = binom.pmf(np.arange(count + 1), count, 0.5)
        lost = np.convolve(lost, one)
    everything = len(lost) - 1
    return float(min(lost[(everything + balance + 1) // 2 :].sum(), 1.0))


def mcnemar_harm_p(gained: Any, lost: Any) -> Any:
    """The same of one run an arm, for arrays of counts."""
    return binom.sf(np.asarray(lost) - 1, np.add(gained, lost), 0.5)
