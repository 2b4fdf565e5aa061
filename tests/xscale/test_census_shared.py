"""What the census takes over, from path to path and from tree to tree, changes no
answer."""

from __future__ import annotations

import pytest

from conftest import Pins
from overlaykit.trees.tree import EditedTree
from xscale.census import Census, evaluator, flow, take_census
from xscale.census.shared import Shared
from xscale.sites import SiteState

from .test_census import MARK, OVERLAY, edited, rest


@pytest.fixture
def afresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is known from trees that other tests have asked about."""
    monkeypatch.setattr(flow, "_flows", Shared())


@pytest.mark.parametrize("target", ["sglang", "sglang-0.5.23"])
def test_paths_run_from_their_start(
    pins: Pins, afresh: None, monkeypatch: pytest.MonkeyPatch, target: str
) -> None:
    tree = pins.patched(target)
    taken = take_census(tree)
    monkeypatch.setattr(flow, "_flows", Shared())
    monkeypatch.setattr(evaluator, "is_settled", lambda *_: False)
    assert take_census(tree) == taken


def test_a_module_that_a_flow_passes_through(pins: Pins, afresh: None) -> None:
    """The callers' files are the same in all three trees."""
    tree = pins.patched("sglang")
    unmarked = edited(tree, OVERLAY, (MARK, "pass"))
    without = EditedTree(tree, {OVERLAY: None})

    def rows(*found: Census) -> list[object]:
        return [census.rows for census in found]

    first = take_census(tree), take_census(unmarked), take_census(without)
    again = take_census(without), take_census(unmarked), take_census(tree)
    assert rows(*first) == rows(*again[::-1])
    assert SiteState.MARKED in rest(first[0])
    assert SiteState.MARKED not in rest(first[1]) | rest(first[2])
