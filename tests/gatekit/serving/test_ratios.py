"""The statistics: against definitions, other implementations, and by simulation."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("scipy", reason="pip install --group gate")

import numpy as np
from scipy import stats

from gatekit.serving.ratios import (
    CODES,
    Array,
    holm,
    interval,
    judge,
    rounds_to_decide,
    statistic,
)
from gatekit.serving.simulation import rates
from gatekit.stats.decision import Decision

P_VALUES = st.lists(st.floats(0, 1), min_size=1, max_size=20)
NUMBERS = st.floats(-0.2, 0.2, allow_nan=False).map(lambda x: round(x, 6))
SAMPLES = st.lists(NUMBERS, min_size=3, max_size=12).filter(
    lambda x: float(np.std(x)) > 1e-6
)


@given(P_VALUES, st.floats(0.001, 0.5))
def test_holm_rejects_as_its_definition_does(p: list[float], alpha: float) -> None:
    """Step down from the smallest; stop at the first that is not small enough."""
    rejected = [False] * len(p)
    for step, place in enumerate(sorted(range(len(p)), key=lambda i: p[i])):
        if p[place] * (len(p) - step) > alpha:
            break
        rejected[place] = True
    assert (holm(p) <= alpha).tolist() == rejected


@given(P_VALUES)
def test_holm_lies_between_nothing_and_bonferroni(p: list[float]) -> None:
    adjusted = holm(p)
    assert (adjusted >= np.asarray(p)).all()
    assert (adjusted <= np.minimum(1, len(p) * np.asarray(p))).all()
    backwards = holm(p[::-1])[::-1]
    # Of equal values the order is free, their adjusted values are the same.
    assert np.allclose(adjusted, backwards)


def test_holm_of_a_published_example() -> None:
    """0.01, 0.04, 0.03, 0.005: as R's p.adjust has it."""
    assert holm([0.01, 0.04, 0.03, 0.005]).tolist() == pytest.approx(
        [0.03, 0.06, 0.06, 0.02]
    )


@given(SAMPLES, st.floats(-0.1, 0.1))
def test_the_statistic_is_students(sample: list[float], bound: float) -> None:
    expected = stats.ttest_1samp(sample, bound).statistic
    assert statistic(np.array(sample), bound) == pytest.approx(expected, rel=1e-6)


@given(SAMPLES, st.floats(0.5, 0.99))
def test_the_interval_is_students(sample: list[float], level: float) -> None:
    expected = stats.ttest_1samp(sample, 0).confidence_interval(level)
    low, high = interval(np.array(sample), level)
    assert (low, high) == pytest.approx((expected.low, expected.high), rel=1e-6)
    assert low < np.mean(sample) < high
    wider = interval(np.array(sample), level + 0.005)
    assert wider[0] < low and high < wider[1]


@given(SAMPLES)
def test_swapped_arms_mirror_the_interval(sample: list[float]) -> None:
    low, high = interval(np.array(sample), 0.9)
    assert interval(-np.array(sample), 0.9) == pytest.approx((-high, -low))


def random_sample(mean: float, noise: float, rounds: int, seed: int = 1) -> Array:
    rng = np.random.default_rng(seed)
    return mean + noise * rng.standard_normal((2, 10, rounds))


@given(st.integers(0, 1000), st.floats(-0.05, 0.05), st.floats(0.001, 0.05))
def test_a_wider_margin_never_undoes_a_pass(
    seed: int, mean: float, noise: float
) -> None:
    sample = random_sample(mean, noise, 5, seed)
    narrow, wide = (judge(sample, margin, 0.05) for margin in (0.01, 0.03))
    assert (wide.noninferior <= narrow.noninferior + 1e-12).all()
    if CODES[int(narrow.codes)] is Decision.PASS:
        assert CODES[int(wide.codes)] is Decision.PASS


@given(st.integers(0, 1000), st.permutations(range(10)))
def test_the_order_of_points_and_rounds_does_not_matter(
    seed: int, order: list[int]
) -> None:
    sample = random_sample(0.0, 0.01, 5, seed)
    one = judge(sample, 0.02, 0.05)
    other = judge(sample[:, order][..., ::-1], 0.02, 0.05)
    assert one.codes == other.codes
    assert np.allclose(one.noninferior[:, order], other.noninferior)


def test_fail_wins_over_pass() -> None:
    """A certain loss within the margin at every point is a loss all the same."""
    sample = random_sample(-0.01, 0.001, 6)
    found = judge(sample, 0.05, 0.05)
    assert (found.noninferior <= 0.05).all()
    assert CODES[int(found.codes)] is Decision.FAIL


@pytest.mark.parametrize("rounds", [1, 4])
def test_without_spread_nothing_is_decided(rounds: int) -> None:
    for mean in (-0.5, 0.0, 0.5):
        found = judge(np.full((2, 10, rounds), mean), 0.02, 0.05)
        assert CODES[int(found.codes)] is Decision.INCONCLUSIVE


def test_the_planned_rounds_decide() -> None:
    sample = random_sample(0.0, 0.02, 6)
    assert CODES[int(judge(sample, 0.02, 0.05).codes)] is Decision.INCONCLUSIVE
    total = rounds_to_decide(sample, 0.02, 0.05)
    assert total is not None and 6 < total < 300
    n = sample.shape[-1]
    shape = stats.norm.ppf((np.arange(total) + 0.5) / total)
    shape = shape / shape.std(ddof=1)
    longer = (
        sample.mean(axis=-1, keepdims=True)
        + sample.std(axis=-1, ddof=1, keepdims=True) * shape
    )
    assert longer.shape[-1] > n
    assert CODES[int(judge(longer, 0.02, 0.05).codes)] is not Decision.INCONCLUSIVE


def test_no_plan_without_spread() -> None:
    assert rounds_to_decide(np.zeros((2, 10, 4)), 0.02, 0.05) is None
    assert rounds_to_decide(random_sample(0, 1, 1), 0.02, 0.05) is None


@pytest.mark.parametrize("noise", [0.01, 0.02, 0.05])
@pytest.mark.parametrize("rounds", [4, 8, 24])
def test_a_point_at_the_margin_passes_as_often_as_promised(
    noise: float, rounds: int
) -> None:
    """The type I error of non-inferiority; at 4,000 its own error is 0.0034."""
    found = rates("at the margin at one point, +30 % elsewhere", noise, rounds)
    assert found.any_noninferior is not None
    assert 0.03 <= found.any_noninferior <= 0.06
    # The verdict needs both metrics.
    assert found.passes <= found.any_noninferior
    assert found.passes > 0.01


@pytest.mark.parametrize("noise", [0.01, 0.02, 0.05])
def test_ten_points_at_the_margin_do_not_pass_more_often(noise: float) -> None:
    found = rates("at the margin at all points", noise, 6)
    assert found.any_noninferior is not None
    assert 0.02 <= found.any_noninferior <= 0.06
    assert found.passes <= 0.001


@pytest.mark.parametrize("noise", [0.01, 0.02, 0.05])
@pytest.mark.parametrize("rounds", [4, 12])
def test_no_difference_seldom_fails(noise: float, rounds: int) -> None:
    found = rates("no difference", noise, rounds)
    assert 0.01 <= found.fails <= 0.06
    assert found.gain <= 0.04


@pytest.mark.parametrize(
    ("noise", "rounds", "least"), [(0.01, 6, 0.99), (0.02, 8, 0.9), (0.05, 48, 0.95)]
)
def test_three_percent_more_is_found(noise: float, rounds: int, least: float) -> None:
    found = rates("+3 % at all points", noise, rounds)
    assert found.passes >= least
    assert found.gain >= least
    assert found.fails <= 0.001


@pytest.mark.parametrize(
    ("noise", "rounds", "least"), [(0.01, 6, 0.99), (0.02, 8, 0.99), (0.05, 24, 0.99)]
)
def test_one_slow_point_among_fast_ones_fails(
    noise: float, rounds: int, least: float
) -> None:
    found = rates("-10 % at one point, +3 % elsewhere", noise, rounds)
    assert found.fails >= least
    assert math.isclose(found.passes, 0)
