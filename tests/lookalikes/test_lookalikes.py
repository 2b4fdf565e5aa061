"""Every tool on every look-alike; the engine is never wrong, the others are on record.

The committed page is what a run gives with the same tools. A machine without one of
them checks the columns that it can; one with other versions skips and says so.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from conftest import ROOT, Pins
from lookalikes.report import COMMAND, DATA, PAGE, document, page
from lookalikes.runner import (
    APPLY,
    ENGINE,
    Place,
    Results,
    found_tools,
    missing_tools,
    run_all,
    versions,
)
from lookalikes.scenarios import SCENARIOS, Scenario

pytestmark = pytest.mark.slow("runs five tools on every scenario")

# One process runs all tools on all scenarios, for all tests: more than a minute.
_each = pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda s: s.name)


@pytest.fixture(scope="module")
def results(pins: Pins) -> Results:
    return run_all(pins.overlay["sglang"], pins.tree("sglang"))


@_each
def test_the_engine_lands_in_the_right_place_or_says_why(
    results: Results, scenario: Scenario
) -> None:
    outcome = results[scenario.name][ENGINE]
    assert frozenset(outcome.states) == scenario.states
    if scenario.lands:
        assert outcome.exit == 0
        assert outcome.place in (Place.RIGHT, Place.THERE)
    else:
        assert outcome.exit == 3
        assert outcome.place is Place.REFUSED
        assert outcome.why
        assert all(reason.rpartition(": ")[2] for reason in outcome.why)


@_each
def test_apply_takes_pinned_files_only(results: Results, scenario: Scenario) -> None:
    outcome = results[scenario.name][APPLY]
    expected = (0, Place.RIGHT) if scenario.nested else (3, Place.REFUSED)
    assert (outcome.exit, outcome.place) == expected


@pytest.mark.parametrize("tool", ["git apply", "git am -3", "patch -p1", "quilt push"])
def test_the_drifts_deceive_the_textual_tools(results: Results, tool: str) -> None:
    """If no tool failed, the suite would prove nothing about the engine."""
    if tool not in found_tools():
        pytest.skip(f"{tool.split()[0]} is not installed")
    twins = ("twin-above-original-rewritten", "original-deleted", "defined-twice")
    for name in twins:
        outcome = results[name][tool]
        assert (outcome.exit, outcome.place) == (0, Place.WRONG)


def test_a_merge_by_hand_is_deceived_too(results: Results) -> None:
    """The reason why the engine checks git's merges."""
    wrong = {
        name
        for name, outcomes in results.items()
        if (outcome := outcomes.get("git merge-tree, by hand"))
        and outcome.exit == 0
        and outcome.place in (Place.WRONG, Place.WRONG_BLOCK)
    }
    assert "original-deleted" in wrong


def test_the_evidence_matches_a_run(results: Results) -> None:
    committed = _committed()
    fresh = json.loads(json.dumps(document(results, committed["tools"])))
    assert _known(committed) == _known(fresh), f"run {COMMAND}"


def test_the_page_shows_the_evidence(results: Results) -> None:
    if missing := missing_tools():
        pytest.skip(f"{', '.join(missing)} not installed: the page has its columns")
    committed = _committed()
    text = (ROOT / PAGE).read_text(encoding="utf-8")
    assert text == page(results, committed["tools"]), f"run {COMMAND}"


def _committed() -> dict[str, Any]:
    """The committed evidence, if this machine's tools can be expected to repeat it."""
    committed: dict[str, Any] = json.loads((ROOT / DATA).read_text(encoding="utf-8"))
    for tool, version in versions().items():
        if committed["tools"][tool] != version:
            pytest.skip(f"made with {committed['tools'][tool]}, here is {version}")
    return committed


def _known(evidence: dict[str, Any]) -> dict[str, Any]:
    """The evidence without the columns of tools that are not installed here."""
    known = {ENGINE, *found_tools()}
    rows = [
        row | {"outcomes": {n: o for n, o in row["outcomes"].items() if n in known}}
        for row in evidence["scenarios"]
    ]
    return evidence | {"scenarios": rows}
