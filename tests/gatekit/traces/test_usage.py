"""Unsuitable files and options: messages and exit codes."""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path

import pytest

from conftest import ROOT
from support.ci_verb import trace_check
from support.profiler_traces import as_profiler
from support.small_traces import LAYERS as SMALL
from support.small_traces import MODULE, capture_of, eager, replay_of

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


def test_an_overlong_file_name() -> None:
    code, report = trace_check("x" * 300, *LAYERS)
    assert code == 5
    assert "too long" in report["message"]


def test_a_directory_without_traces(tmp_path: Path) -> None:
    code, report = trace_check(tmp_path, *LAYERS)
    assert code == 2
    assert report["findings"][0]["what"] == "no trace in the directory"


def test_a_capture_of_a_baseline_that_is_not_given() -> None:
    code, report = trace_check(AFTER, "--baseline-capture", BEFORE, *LAYERS)
    assert code == 2
    assert "--baseline" in report["message"]


@pytest.mark.parametrize("option", ["--expect-layers", "--expect-gemms"])
def test_expecting_nothing_is_not_a_pass(option: str) -> None:
    """No layers, or no GEMMs, would mean no copies."""
    code, _ = trace_check(AFTER, *LAYERS, option, "0")
    assert code in (2, 4)


# Other JSON files, such as those that SGLang and vLLM write next to traces.
_OTHERS = {
    "list of captures": [{"file": "bs_1.json", "batch_size": 1, "mode": "FULL"}],
    "object": {"model": "GLM-5.1", "steps": [1, 2]},
    "memory snapshot": {"segments": [], "device_traces": [[]]},
    "empty list": [],
    "empty object": {},
    "number": 7,
    "null": None,
    "list of numbers": [1, 2],
}
ASKED = ("--module", MODULE, "--expect-layers", str(SMALL))


def folders(place: Path) -> dict[str, Path]:
    """Folders of a replay, its capture, an eager trace, and its baseline."""
    before, trace = eager(copies=((30.0, 33.0),)), eager()
    made = {
        "capture": capture_of(trace),
        "after": trace,
        "before": before,
        "replay": replay_of(eager()),
    }
    for name, document in made.items():
        (place / name).mkdir()
        (place / name / f"{name}.json").write_bytes(as_profiler(document))
    return {name: place / name for name in made}


@pytest.mark.parametrize("what", _OTHERS)
@pytest.mark.parametrize("zipped", [False, True])
def test_other_json_files_are_ignored(what: str, zipped: bool, tmp_path: Path) -> None:
    at = folders(tmp_path)
    text = json.dumps(_OTHERS[what]).encode()
    others = []
    for folder in at.values():
        others.append(folder / ("execution_details.json" + ".gz" * zipped))
        others[-1].write_bytes(gzip.compress(text) if zipped else text)
    code, report = trace_check(at["replay"], "--capture", at["capture"], *ASKED)
    assert code == 0, report
    assert str(others[0]) in report["message"]
    code, report = trace_check(at["after"], "--baseline", at["before"], *ASKED)
    assert code == 0, report
    assert str(others[1]) in report["message"] and str(others[2]) in report["message"]


def test_a_named_json_file_is_read_as_a_trace(tmp_path: Path) -> None:
    at = folders(tmp_path)
    other = at["capture"] / "execution_details.json"
    other.write_text(json.dumps(_OTHERS["list of captures"]))
    captures = ("--capture", at["capture"] / "capture.json", other)
    for words in ((other,), (at["after"], "--baseline", other)):
        code, _ = trace_check(*words, *ASKED)
        assert code == 2
    code, report = trace_check(at["replay"], *captures, *ASKED)
    assert code == 2
    assert report["findings"][0]["path"] == str(other)


@pytest.mark.parametrize(
    "text",
    [b"", b"{", b'{"traceEvents": [', b'[{"ph": "X"', b"<html>", b'{"a": 1}}',
     b'{"traceEvents": []}', b'{"traceEvents": null}', b'[{"ph": "X", "cat": "x"}]',
     b"\x1f\x8bcut"],
)  # fmt: skip
def test_a_damaged_trace_is_not_ignored(text: bytes, tmp_path: Path) -> None:
    """A truncated, damaged or empty trace may be that of another rank."""
    at = folders(tmp_path)
    (at["capture"] / "other.json").write_bytes(text)
    code, report = trace_check(at["replay"], "--capture", at["capture"], *ASKED)
    assert code == 2
    assert report["findings"][0]["path"].endswith("other.json")


def test_a_folder_of_json_without_a_trace(tmp_path: Path) -> None:
    at = folders(tmp_path)
    shutil.rmtree(at["capture"])
    at["capture"].mkdir()
    (at["capture"] / "execution_details.json").write_text("[]")
    code, report = trace_check(at["replay"], "--capture", at["capture"], *ASKED)
    assert code == 2
    (finding,) = report["findings"]
    assert finding["what"] == "no trace in the directory"
    assert "execution_details.json" in finding["found"]
