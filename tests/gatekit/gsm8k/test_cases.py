"""The incident must FAIL and the claim must not pass, at every assumed discordance."""

from __future__ import annotations

import pytest

pytest.importorskip("scipy", reason="pip install --group gate-test")

from gatekit.gsm8k.cases import INCIDENT, published, split


def test_the_incident_fails_but_not_by_an_unpaired_test() -> None:
    cases = [case for case in published() if case.what == "incident"]
    assert len(cases) == 3 * len(INCIDENT) == 12
    assert {case.decision for case in cases} == {"fail"}
    assert {case.discordance for case in cases} == {0.03, 0.04, 0.06}
    unpaired = [case.unpaired_p for case in cases]
    assert min(unpaired) >= 0.02
    assert max(unpaired) == pytest.approx(0.11, abs=0.005)


def test_the_claim_is_inconclusive_at_a_point() -> None:
    cases = [case for case in published() if case.what == "claim"]
    assert {case.decision for case in cases} == {"inconclusive"}
    assert [case.discordance for case in cases] == [0.01, 0.02, 0.03, 0.04, 0.05, 0.06]
    assert all(case.further for case in cases)


@pytest.mark.parametrize("discordance", (0.03, 0.04, 0.06))
def test_split_counts_match_the_scores(discordance: float) -> None:
    gained, lost = split(1319, 0.925, 0.912, discordance)
    assert lost - gained == round(0.925 * 1319) - round(0.912 * 1319) == 17
    assert discordance * 1319 <= gained + lost < discordance * 1319 + 2
