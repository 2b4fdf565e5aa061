"""What a reader sees of the page: in a real browser, on a desk and on a telephone."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("jinja2", reason="pip install --group gate")

from gatekit.report.reports import write_reports
from gatekit.report.schema import StageState

from .conftest import POINTS, STAGES, Gate
from .pages import seen

pytestmark = pytest.mark.slow("a real browser lays the page out")


@pytest.mark.parametrize("width", [1280, 400])
def test_what_a_reader_sees(gate: Gate, tmp_path: Path, width: int) -> None:
    away = {"state": StageState.NOT_RUN, "reason": "needs an AMD GPU", "evidence": {}}
    lost = dict.fromkeys(("traces", "bench", *(f"bench:{p}" for p in POINTS)), away)
    worse = {"gsm8k": {"state": StageState.FAIL, "reason": "it answers worse"}}
    _, _, path = write_reports(gate(StageState.FAIL, **lost, **worse), tmp_path)
    view = seen(path, width, tmp_path)
    assert view["text"].startswith("Gate: fail")
    assert view["first"] < 150, "the verdict is not the first thing to see"
    assert "gsm8k: fail: it answers worse" in view["text"]
    assert len(view["stages"]) == len(STAGES)
    for row, name in zip(view["stages"], STAGES, strict=True):
        assert row.startswith(f"{name}:")
        assert ("not run" in row and "needs an AMD GPU" in row) == (name in lost)
        assert ("fail" in row) == (name == "gsm8k")
    assert view["text"].count("Not run: needs an AMD GPU.") >= 2
    # No page wider than its window: wide things scroll within themselves.
    assert view["wide"] <= 0
    assert view["absent"] and view["good"]
    assert not set(view["absent"]) & set(view["good"])
    # Nor a table wider than its room, but on a telephone those of figures.
    assert width < 1000 or view["cut"] == []
    # GSM8K's two and the chain's one, and all of them have room to be read.
    assert len(view["drawn"]) == 3
    assert min(view["drawn"]) > 300
