"""Is the patched arm worse? McNemar's test, exact, one-sided.

With one run per arm, the number of questions lost, among those on which the arms
differ, is binomial with probability 1/2 if the arms are equal. With several runs,
differences also have sizes; the test is then the exact sign-flip test, and McNemar's
test is its special case of one size.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from gatekit.stats.pairs import Pairs


def harm_p(pairs: Pairs) -> float:
    """The probability of at least this net loss if the arms are equal."""
    sizes: Counter[int] = Counter()
    for step, count in pairs.differences:
        if step:
            sizes[abs(step)] += count
    balance = -sum(step * count for step, count in pairs.differences)
    # The total loss in steps is a sum over sizes of size x binomial.
    lost = np.ones(1)
    for size, count in sizes.items():
        one = np.zeros(size * count + 1)
        one[::size] = _binom().pmf(np.arange(count + 1), count, 0.5)
        lost = np.convolve(lost, one)
    everything = len(lost) - 1
    return float(min(lost[(everything + balance + 1) // 2 :].sum(), 1.0))


def mcnemar_harm_p(gained: Any, lost: Any) -> Any:
    """The same for arrays of counts, with one run per arm."""
    return _binom().sf(np.asarray(lost) - 1, np.add(gained, lost), 0.5)


def _binom() -> Any:
    """The distribution. It takes a second to load, and a comparison of speeds, which
    shares the decisions, never uses it."""
    from scipy.stats import binom

    return binom
