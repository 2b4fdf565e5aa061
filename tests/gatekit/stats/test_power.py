"""Error rates and power of the decision: the figures of the evidence page."""

from __future__ import annotations

import pytest

pytest.importorskip("scipy", reason="pip install --group gate-test")

from gatekit.stats.decision import Rule
from gatekit.stats.power import chances, detectable, drop_found
from gatekit.stats.simulation import several_runs, type_1_one_run

pytestmark = pytest.mark.slow("chances summed over thousands of counts")

_MARGINS = ((1200, 0.015), (1319, 0.015), (3957, 0.010))


@pytest.mark.parametrize("n, margin", _MARGINS)
@pytest.mark.parametrize("discordance", (0.02, 0.03, 0.04, 0.05, 0.06))
def test_type_1_error_at_the_margin(n: int, margin: float, discordance: float) -> None:
    drawn = type_1_one_run(n, discordance, Rule(margin), draws=10_000, seed=1)
    assert 0.03 <= drawn <= 0.06
    summed = chances(n, discordance, -margin, Rule(margin)).non_inferior
    # Four standard errors of 10,000 draws.
    assert drawn == pytest.approx(summed, abs=0.009)


@pytest.mark.parametrize("runs", (1, 2, 4))
def test_type_1_error_with_several_runs_of_the_same_questions(runs: int) -> None:
    """Pooling 2 runs as if they were different questions would double the error."""
    _, clears = several_runs(1319, runs, 0.06, 0.016, Rule(0.015), 1500, seed=2)
    assert clears <= 0.06
    fails, _ = several_runs(1319, runs, 0.06, 0.0, Rule(0.015), 1500, seed=2)
    assert fails <= 0.065


@pytest.mark.parametrize("n, margin", _MARGINS)
@pytest.mark.parametrize("discordance", (0.01, 0.02, 0.03, 0.04, 0.05, 0.06))
def test_equal_arms_rarely_fail(n: int, margin: float, discordance: float) -> None:
    assert chances(n, discordance, 0.0, Rule(margin)).fails <= 0.05


def test_the_default_margins_can_be_shown() -> None:
    """At 3 % discordance equal arms pass nine times in ten; a point less would not."""
    assert detectable(1319, 0.03, Rule(0.015)).passes_if_equal > 0.9
    assert detectable(3957, 0.03, Rule(0.010)).passes_if_equal > 0.9
    assert detectable(1319, 0.03, Rule(0.010)).passes_if_equal < 0.7


def test_the_found_drop_is_found() -> None:
    rule = Rule(0.015)
    drop = drop_found(1319, 0.03, rule, 0.8)
    assert drop
    assert chances(1319, 0.03, -drop, rule).fails == pytest.approx(0.8, abs=0.01)
    assert chances(1319, 0.03, -drop / 2, rule).fails < 0.5


def test_a_difference_beyond_the_discordance_is_refused() -> None:
    with pytest.raises(ValueError, match="discordant"):
        chances(1319, 0.01, -0.02, Rule(0.015))
