"""The paired statistics against published values, packages and definitions."""

from __future__ import annotations

from math import log

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

pytest.importorskip("scipy", reason="pip install --group gate-test")

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.stats import norm

from gatekit.stats.decision import Decision, Rule, decide, further, outcomes
from gatekit.stats.harm import harm_p
from gatekit.stats.intervals import newcombe, score_z, tango
from gatekit.stats.pairs import Pairs, counted, pair

_LEVELS = st.sampled_from((0.8, 0.9, 0.95, 0.99))


@st.composite
def _counts(draw: st.DrawFn, most: int = 400) -> tuple[int, int, int]:
    n = draw(st.integers(1, most))
    gained = draw(st.integers(0, n))
    return gained, draw(st.integers(0, n - gained)), n


def test_tango_as_published() -> None:
    found = tango(3, 0, 3, 0.95)
    assert (round(found.lower, 4), found.upper) == (-0.1230, 1.0)


def test_newcombe_as_published() -> None:
    """The paired table 59, 6, 16, 80 (Cavo et al. 2012) in the R package
    contingencytables: -0.1186 to -0.0046."""
    found = newcombe(both=59, gained=6, lost=16, neither=80, level=0.95)
    assert (round(found.lower, 4), round(found.upper, 4)) == (-0.1186, -0.0046)


@given(st.integers(1, 60), st.integers(0, 60), st.integers(0, 60), _LEVELS)
def test_newcombe_agrees_with_statsmodels(
    both: int, gained: int, lost: int, level: float
) -> None:
    """If the answers are hardly correlated, the continuity correction removes the
    correlation, and the interval equals that of two independent proportions, which
    statsmodels has."""
    proportion = pytest.importorskip("statsmodels.stats.proportion")
    neither = -(-gained * lost // both)
    n = both + gained + lost + neither
    assume(0 <= both * neither - gained * lost <= n / 2)
    found = newcombe(both, gained, lost, neither, level)
    low, high = proportion.confint_proportions_2indep(
        both + gained, n, both + lost, n, method="newcomb", alpha=1 - level
    )
    assert (found.lower, found.upper) == pytest.approx((low, high), abs=1e-9)


@given(_counts(), _LEVELS)
def test_swapping_the_arms_mirrors_the_interval(
    counts: tuple[int, int, int], level: float
) -> None:
    gained, lost, n = counts
    one, other = tango(gained, lost, n, level), tango(lost, gained, n, level)
    assert one.lower == pytest.approx(-other.upper, abs=1e-9)
    assert one.upper == pytest.approx(-other.lower, abs=1e-9)


@given(_counts())
def test_a_wider_level_holds_the_narrower_and_the_estimate(
    counts: tuple[int, int, int],
) -> None:
    gained, lost, n = counts
    inner, outer = (tango(gained, lost, n, level) for level in (0.9, 0.95))
    estimate = (gained - lost) / n
    assert -1 <= outer.lower <= inner.lower <= estimate + 1e-12
    assert estimate - 1e-12 <= inner.upper <= outer.upper <= 1


def _brute_force_z(gained: int, lost: int, n: int, difference: float) -> float:
    """The statistic with its nuisance parameter found by maximizing the likelihood."""

    def unlikely(only_lost: float) -> float:
        cells = (
            (gained, only_lost + difference),
            (lost, only_lost),
            (n - gained - lost, 1 - 2 * only_lost - difference),
        )
        return -sum(count * log(max(share, 1e-300)) for count, share in cells if count)

    low, high = max(0.0, -difference), (1 - difference) / 2
    best = minimize_scalar(
        unlikely, bounds=(low, high), method="bounded", options={"xatol": 1e-12}
    ).x
    variance = n * (2 * best + difference - difference**2)
    return float((gained - lost - n * difference) / np.sqrt(variance))


@settings(max_examples=200)
@given(_counts(), st.floats(-0.95, 0.95))
def test_the_closed_form_is_the_most_likely(
    counts: tuple[int, int, int], difference: float
) -> None:
    gained, lost, n = counts
    if abs(gained - lost - n * difference) < 1e-3:
        return
    brute = _brute_force_z(gained, lost, n, difference)
    assert float(score_z(gained, lost, n, difference)) == pytest.approx(brute, rel=1e-3)


@pytest.mark.parametrize("counts", [(12, 29, 1319), (0, 4, 1319), (7, 7, 30)])
def test_the_interval_inverts_the_likelihood(counts: tuple[int, int, int]) -> None:
    """Checked with the brute-force statistic on both sides of each end."""
    quantile = norm.ppf(0.95)
    found = tango(*counts, 0.9)
    for end, sign in ((found.lower, 1), (found.upper, -1)):
        outside = _brute_force_z(*counts, end - sign * 1e-4)
        inside = _brute_force_z(*counts, end + sign * 1e-4)
        assert sign * outside > quantile > sign * inside


@given(_counts(most=2000), _LEVELS)
def test_no_difference_at_all_is_wilsons_bound(
    counts: tuple[int, int, int], level: float
) -> None:
    """Without discordant pairs the ends are z^2 / (n + z^2), by the definition."""
    n = counts[2]
    z = float(norm.ppf((1 + level) / 2))
    found = tango(0, 0, n, level)
    assert -found.lower == pytest.approx(z * z / (n + z * z), rel=1e-6)


@given(st.integers(0, 200), st.integers(0, 200))
def test_mcnemar_agrees_with_statsmodels(gained: int, lost: int) -> None:
    tables = pytest.importorskip("statsmodels.stats.contingency_tables")
    two_sided = tables.mcnemar([[0, gained], [lost, 0]], exact=True).pvalue
    pairs = counted(gained, lost, gained + lost + 10)
    p = harm_p(pairs)
    if lost > gained:
        assert p == pytest.approx(two_sided / 2, rel=1e-9)
    else:
        assert p >= 0.5


def test_several_sizes_of_difference_against_all_signs() -> None:
    steps = {2: (1, 3), 1: (2, 4)}  # size -> how many gained, how many lost
    sizes = [size for size, (up, down) in steps.items() for _ in range(up + down)]
    balance = sum(size * (down - up) for size, (up, down) in steps.items())
    totals = [
        sum(size if sign >> place & 1 else -size for place, size in enumerate(sizes))
        for sign in range(2 ** len(sizes))
    ]
    brute = np.mean([total >= balance for total in totals])
    listed = [
        (sign * size, count)
        for size, both in steps.items()
        for sign, count in zip((1, -1), both, strict=True)
    ]
    assert harm_p(Pairs(2, (*listed, (0, 50)))) == pytest.approx(brute, rel=1e-9)


@given(_counts())
def test_repeating_the_same_answers_adds_nothing(counts: tuple[int, int, int]) -> None:
    """Identical runs are no more evidence than one run."""
    gained, lost, n = counts
    before = [True] * lost + [False] * (n - lost)
    after = [False] * lost + [True] * gained + [False] * (n - lost - gained)
    one, four = pair([before], [after]), pair([before] * 4, [after] * 4)
    once, often = decide(one, Rule(0.015)), decide(four, Rule(0.015))
    assert (once.decision, once.further) == (often.decision, often.further)
    assert once.interval.lower == pytest.approx(often.interval.lower, abs=1e-9)
    assert once.harm_p == pytest.approx(often.harm_p, rel=1e-9)


@given(_counts())
@example((353, 1, 354))
def test_the_decision_of_arrays_is_that_of_one(counts: tuple[int, int, int]) -> None:
    gained, lost, n = counts
    rule = Rule(0.015)
    decision = decide(counted(gained, lost, n), rule).decision
    fails, passes = outcomes(np.array([gained]), np.array([lost]), n, rule)
    assert bool(fails[0]) == (decision is Decision.FAIL)
    assert bool(passes[0]) == (decision is Decision.PASS)


@pytest.mark.parametrize("gained, lost", [(15, 21), (21, 27), (33, 39), (39, 39)])
def test_further_questions_do_decide(gained: int, lost: int) -> None:
    rule = Rule(0.01)
    pairs = counted(gained, lost, 1200)
    assert decide(pairs, rule).decision is Decision.INCONCLUSIVE
    more = further(pairs, rule)
    assert more
    scale = (1200 + more) / 1200
    grown = counted(round(gained * scale), round(lost * scale), 1200 + more)
    assert decide(grown, Rule(0.0101)).decision is not Decision.INCONCLUSIVE
    half = counted(round(gained * (1 + scale) / 2), round(lost * (1 + scale) / 2),
                   1200 + more // 2)  # fmt: skip
    assert decide(half, rule).decision is Decision.INCONCLUSIVE


def test_small_certain_harm_fails_although_it_is_below_the_margin() -> None:
    decided = decide(counted(0, 8, 4000), Rule(0.01))
    assert decided.interval.lower > -0.01
    assert decided.decision is Decision.FAIL


def test_unequal_numbers_of_runs_are_refused() -> None:
    with pytest.raises(ValueError, match="1 and 2 runs"):
        pair([[True]], [[True], [True]])
