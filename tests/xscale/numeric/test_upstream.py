"""The defects of an unpatched release are found without knowing where they are."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from conftest import ROOT, Pins
from overlaykit.core.errors import EnvironmentFailure
from overlaykit.sources.releases import release_tree
from releases.report import DATA
from releases.survey import survey
from xscale.liveness import NATIVE_BLOCK_FP8, probe
from xscale.numeric import CaseResult, reduced_matrix
from xscale.sites import SiteState

pytestmark = pytest.mark.slow("releases of upstream are run through the numeric proof")

_WRONG = {
    ("S8", "Triton"),
    ("S8", "bpreshuffle"),
    ("gather", "Triton"),
    ("gather", "bpreshuffle"),
    ("indexer", "elementwise"),
}


def test_0_5_13_leaves_s8_behind(
    pins: Pins, prove: Callable[..., tuple[CaseResult, ...]]
) -> None:
    """Seven producers are transposed, the eighth is not, and the consumer assumes
    all."""
    try:
        tree = release_tree(ROOT, pins.overlay["sglang"].target, "0.5.13")
    except EnvironmentFailure as error:
        pytest.skip(f"the release is not available: {error}")
    outcomes = prove(tree, reduced_matrix(), compare=False)
    lives = {NATIVE_BLOCK_FP8.name: probe(tree, pins.patched("aiter"))}
    found = survey("0.5.13", tree, outcomes, lives)
    assert found.wrong() == _WRONG
    producers = {row for row in found.census if row.site.startswith("S")}
    assert {row.live for row in producers} == {True}
    assert not found.not_run
    # Scrambled if there is more than one row and more than one group.
    for outcome in outcomes:
        for reading in outcome.readings:
            if reading.site == "S8" and outcome.case.platform.bpreshuffle:
                assert reading.bytes == (min(reading.shape) <= 1), outcome
    states = {row.state for row in found.census if row.site == "S8"}
    assert states == {SiteState.ROW_MAJOR}
    assert {f.site for f in found.dangers} == {"S8", "C"}
    releases = json.loads((ROOT / DATA).read_text(encoding="utf-8"))["releases"]
    (kept,) = (one for one in releases if one["version"] == "0.5.13")
    assert kept["verdicts"] == found.verdicts, "the page is stale: make evidence"
