"""The real traces give their documented figures, by every method."""

from __future__ import annotations

from pathlib import Path

from support.ci_verb import trace_check
from support.profiler_traces import CAPTURE, EAGER, REPLAY, load, needs_traces, write

pytestmark = needs_traces

QWEN = ("--module", "Qwen3Attention", "--expect-layers", "36")


def test_a_eager() -> None:
    code, report = trace_check(EAGER, *QWEN, "--expect-copies", "2")
    (result,) = report["results"]
    after = result["after"]
    assert (code, result["verdict"]) == (0, "pass")
    assert after["method"].startswith("A")
    assert after["attributed"] is True
    assert len(after["layers"]) == after["calls"] == 36
    each = [layer["per_call"] for layer in after["layers"]]
    assert {(one["copies"], one["kernels"]) for one in each} == {(2, 9)}


def test_b_replay_with_capture() -> None:
    folder = CAPTURE.parent
    code, report = trace_check(
        REPLAY.parent, "--capture", folder, *QWEN, "--expect-copies", "2"
    )
    (result,) = report["results"]
    after = result["after"]
    assert (code, result["verdict"]) == (0, "pass")
    assert after["method"].startswith("B")
    assert (after["replays"], after["replayed"]) == (1, 544)
    each = [layer["per_call"] for layer in after["layers"]]
    assert {(one["copies"], one["kernels"]) for one in each} == {(2, 10)}
    assert len(each) == 36
    assert round(sum(one["time_ns"] for one in each) / 36_000, 1) == 130.0


def test_c_replay_alone_is_never_a_pass() -> None:
    for expected in ("0", "2"):
        code, report = trace_check(REPLAY, *QWEN, "--expect-copies", expected)
        (result,) = report["results"]
        after = result["after"]
        assert (code, result["verdict"]) == (4, "invalid")
        assert after["method"].startswith("C")
        assert after["attributed"] is False
        assert (after["replays"], after["replayed"]) == (1, 544)
        # A stretch includes the layer's other kernels and its 2 copies.
        each = [layer["per_call"] for layer in after["layers"]]
        assert {(one["copies"], one["kernels"]) for one in each} == {(2, 15)}
        assert len(each) == 36
        (finding,) = report["findings"]
        assert "belong to modules" in finding["what"]
        assert "--capture" in finding["next_step"]


def test_an_unmet_expectation() -> None:
    code, report = trace_check(EAGER, *QWEN)
    assert code == 1
    (finding,) = report["findings"]
    assert finding["what"] == "fail: 0 copies in every Qwen3Attention"
    assert finding["found"].startswith("36: layer 0, step 0: 2")


def test_the_worst_of_several_traces_decides(tmp_path: Path) -> None:
    write(tmp_path / "a.json.gz", load(EAGER))
    write(tmp_path / "b.json.gz", load(REPLAY))
    code, report = trace_check(tmp_path, *QWEN, "--expect-copies", "2")
    assert code == 4
    assert [one["verdict"] for one in report["results"]] == ["pass", "invalid"]
    (tmp_path / "c.json").write_bytes(b'{"traceEvents": [')
    code, report = trace_check(tmp_path, *QWEN, "--expect-copies", "2")
    assert code == 2
    assert [one["verdict"] for one in report["results"]] == ["pass", "invalid"]
    assert report["findings"][-1]["path"].endswith("c.json")
