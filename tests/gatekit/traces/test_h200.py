"""Real CUDA traces of the projection chain, made by ``ci/microbench.py`` on an H200.

GLM-5.1 TP=8 shapes at M = 64, three layers, two steps: the pin as released, with a copy
before each of its four GEMMs, and this series.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from conftest import ROOT
from support.ci_verb import trace_check

TRACES = ROOT / "tests" / "data" / "traces" / "h200-m64"
LAYERS = ("--expect-layers", "3")


def trace(arm: str, mode: str) -> Path:
    return TRACES / f"{arm}-{mode}-TP-0-DECODE.trace.json.gz"


def code_of(*arguments: str | Path, copies: int) -> int:
    code, _ = trace_check(*arguments, *LAYERS, "--expect-copies", str(copies))
    return code


@pytest.mark.parametrize("mode", ["eager", "replay"])
@pytest.mark.parametrize(("arm", "copies"), [("pristine", 4), ("series", 0)])
def test_copies_per_layer(arm: str, mode: str, copies: int) -> None:
    """Replays use the same step run eagerly: CUDA does not name captured kernels."""
    capture = ("--capture", trace(arm, "eager")) if mode == "replay" else ()
    assert code_of(trace(arm, mode), *capture, copies=copies) == 0
    assert code_of(trace(arm, mode), *capture, copies=4 - copies) == 1


def test_a_replay_alone_proves_nothing() -> None:
    assert code_of(trace("series", "replay"), copies=0) == 4


def test_a_replay_of_something_else_proves_nothing() -> None:
    capture = ("--capture", trace("pristine", "eager"))
    assert code_of(trace("series", "replay"), *capture, copies=0) == 4


def test_before_and_after() -> None:
    before, after = trace("pristine", "eager"), trace("series", "eager")
    assert code_of(after, "--baseline", before, copies=0) == 0
    assert code_of(before, "--baseline", after, copies=0) == 1


def test_before_and_after_replayed() -> None:
    """Each needs its own capture."""
    before, after = trace("pristine", "replay"), trace("series", "replay")
    was, now = trace("pristine", "eager"), trace("series", "eager")
    pair = (after, "--capture", now, "--baseline", before)
    assert code_of(*pair, "--baseline-capture", was, copies=0) == 0
    assert code_of(*pair, "--baseline-capture", now, copies=0) == 4
    assert code_of(*pair, copies=0) == 4
    swapped = (before, "--capture", was, "--baseline", after)
    assert code_of(*swapped, "--baseline-capture", now, copies=0) == 1
