"""Files and options that do not fit: what is said of them, and the exit code."""

from __future__ import annotations

from pathlib import Path

import pytest
from ci_verb import trace_check

from conftest import ROOT

TRACES = ROOT / "tests" / "data" / "traces" / "h200-m64"
AFTER = TRACES / "series-eager-TP-0-DECODE.trace.json.gz"
BEFORE = TRACES / "pristine-eager-TP-0-DECODE.trace.json.gz"
LAYERS = ("--expect-layers", "3")


@pytest.mark.parametrize("option", [None, "--baseline", "--capture"])
def test_a_file_that_does_not_exist(option: str | None) -> None:
    given = (AFTER, option, "no-such") if option else ("no-such",)
    code, report = trace_check(*given, *LAYERS)
    assert code == 2
    (finding,) = report["findings"]
    assert (finding["path"], finding["what"]) == ("no-such", "does not exist")


def test_a_name_that_no_file_can_have() -> None:
    code, report = trace_check("x" * 300, *LAYERS)
    assert code == 5
    assert "too long" in report["message"]


def test_a_directory_without_traces(tmp_path: Path) -> None:
    code, report = trace_check(tmp_path, *LAYERS)
    assert code == 2
    assert report["findings"][0]["what"] == "no trace in it"


def test_a_capture_of_a_baseline_that_is_not_given() -> None:
    code, report = trace_check(AFTER, "--baseline-capture", BEFORE, *LAYERS)
    assert code == 2
    assert "--baseline" in report["message"]


@pytest.mark.parametrize("option", ["--expect-layers", "--expect-gemms"])
def test_expecting_nothing_is_no_pass(option: str) -> None:
    """No layers, or no GEMMs in them, have no copies either."""
    code, _ = trace_check(AFTER, *LAYERS, option, "0")
    assert code in (2, 4)
