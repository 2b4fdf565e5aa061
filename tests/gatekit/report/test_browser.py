"""The page in a real browser, on a wide screen and on a phone."""

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
def test_page_in_a_browser(gate: Gate, tmp_path: Path, width: int) -> None:
    away = {"state": StageState.NOT_RUN, "reason": "needs an AMD GPU", "evidence": {}}
    lost = dict.fromkeys(("traces", "bench", *(f"bench:{p}" for p in POINTS)), away)
    worse = {"gsm8k": {"state": StageState.FAIL, "reason": "it answers worse"}}
    _, _, path = write_reports(gate(StageState.FAIL, **lost, **worse), tmp_path)
    view = seen(path, width, tmp_path)
    assert view["text"].startswith("Gate: fail")
    assert view["first"] < 150, "the verdict is not at the top"
    assert "gsm8k: fail: it answers worse" in view["text"]
    assert len(view["stages"]) == len(STAGES)
    for row, name in zip(view["stages"], STAGES, strict=True):
        assert row.startswith(f"{name}:")
        assert ("not run" in row and "needs an AMD GPU" in row) == (name in lost)
        assert ("fail" in row) == (name == "gsm8k")
    assert view["text"].count("Not run: needs an AMD GPU.") >= 2
    # The page is no wider than the window; wide parts scroll.
    assert view["wide"] <= 0
    assert view["absent"] and view["good"]
    assert not set(view["absent"]) & set(view["good"])
    # On a wide screen no table scrolls.
    assert width < 1000 or view["cut"] == []
    # Two drawings for GSM8K and one for the chain, all wide enough to read.
    assert len(view["drawn"]) == 3
    assert min(view["drawn"]) > 300
