"""The report has the same timeline as the trace check."""

from __future__ import annotations

from pathlib import Path

import pytest

from gatekit.report.page import page

from .conftest import Gate, compared, trace

pytest.importorskip("jinja2", reason="pip install --group gate")


def test_the_report_draws_what_the_trace_check_draws(
    gate: Gate, tmp_path: Path
) -> None:
    """Drawn from the evidence alone, before and after, for a call with copies."""
    drawn = tmp_path / "timeline.svg"
    document = compared(trace("series"), trace("pristine"), "--svg", drawn)
    before, after = (document["results"][0][side] for side in ("before", "after"))
    assert (len(before["typical"]), len(after["typical"])) == (14, 10)
    text = page(gate(traces={"evidence": {"compare": document}}))
    assert drawn.read_text(encoding="utf-8").strip() in text
    assert "No timeline" not in text
