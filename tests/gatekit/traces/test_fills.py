"""Memory calls without a GPU record: fills and copies of 0 bytes.

Many fills in real CUDA traces have no record (cuBLAS and cuDNN fill 0 bytes). No
profiler writes a fill's size; ROCm's writes a copy's size, CUDA's does not.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gatekit.records.checks import Verdict
from gatekit.traces.verdicts import Assessment, Requirement, analyse, decide
from support.profiler_traces import Document, as_profiler
from support.small_traces import (
    LAYERS,
    MODULE,
    call,
    capture_of,
    eager,
    ran,
    replay_of,
    start,
)

_LOST = "memory calls in modules have records"


def judge(
    tmp_path: Path, trace: Document, captured: Document | None = None
) -> Assessment:
    def write(name: str, document: Document) -> Path:
        (tmp_path / name).write_bytes(as_profiler(document))
        return tmp_path / name

    captures = [write("capture", captured)] if captured else []
    required = Requirement(MODULE, LAYERS, 0)
    return decide(analyse(write("trace", trace), required, captures), None, required)


def broken(assessment: Assessment) -> set[str]:
    return {control.name for control in assessment.controls if not control.holds}


def calling(name: str, **args: Any) -> Document:
    """Each module makes one such call, without a record."""
    trace = eager()
    for layer in range(LAYERS):
        trace["traceEvents"].append(call(name, 900 + layer, start(layer) + 2, **args))
    return trace


@pytest.mark.parametrize(
    "name",
    ["cudaMemsetAsync", "hipMemsetAsync", "cudaMemset", "cuMemsetD32Async",
     "cudaMemset2DAsync"],
)  # fmt: skip
def test_a_fill_without_a_record_is_not_lost(name: str, tmp_path: Path) -> None:
    assessment = judge(tmp_path, calling(name))
    assert assessment.verdict is Verdict.PASS, broken(assessment)


@pytest.mark.parametrize("args", [{"bytes": "0"}, {"size": "0"}, {"bytes": 0}])
def test_a_copy_of_0_bytes_is_not_lost(args: dict[str, Any], tmp_path: Path) -> None:
    assessment = judge(tmp_path, calling("hipMemcpyAsync", **args))
    assert assessment.verdict is Verdict.PASS, broken(assessment)


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("cudaMemcpyAsync", {}),
        ("hipMemcpyAsync", {}),
        ("hipMemcpyAsync", {"bytes": "256"}),
        ("hipMemcpyAsync", {"size": "1"}),
        ("hipMemcpyAsync", {"bytes": False}),
        ("hipMemcpyAsync", {"bytes": ""}),
        ("cuMemcpyDtoDAsync_v2", {}),
    ],
)
def test_a_copy_without_a_record_is_lost(
    name: str, args: dict[str, Any], tmp_path: Path
) -> None:
    """It may have copied 0 bytes, but the trace does not show it."""
    assessment = judge(tmp_path, calling(name, **args))
    assert assessment.verdict is Verdict.INVALID
    assert broken(assessment) == {_LOST}


def test_a_lost_copy_whose_call_leaves_after_its_module(tmp_path: Path) -> None:
    trace = calling("hipMemcpyAsync")
    for event in trace["traceEvents"]:
        if event["name"] == "hipMemcpyAsync":
            event["ts"] += 56
            event["dur"] = 2.001
    assessment = judge(tmp_path, trace)
    assert assessment.verdict is Verdict.INVALID
    assert broken(assessment) == {_LOST}


@pytest.mark.parametrize("name", ["cudaMemsetAsync", "hipMemcpyAsync"])
def test_an_eager_step_with_them_serves_as_capture(name: str, tmp_path: Path) -> None:
    """Otherwise, calls without a record mean that a graph was captured."""
    step = calling(name, bytes="0")
    assessment = judge(tmp_path, replay_of(eager()), step)
    assert assessment.verdict is Verdict.PASS, broken(assessment)


@pytest.mark.parametrize("name", ["hipMemsetAsync", "hipMemcpyAsync"])
def test_a_capture_with_them(name: str, tmp_path: Path) -> None:
    assessment = judge(
        tmp_path, replay_of(eager()), capture_of(calling(name, bytes="0"))
    )
    assert assessment.verdict is Verdict.PASS, broken(assessment)


def test_fills_that_a_replay_ran(tmp_path: Path) -> None:
    """Fills of more than 0 bytes are aligned with those of the capture."""
    trace = calling("hipMemsetAsync")
    fills = [ran("Memset (Device)", 777, start(n) + 3) for n in range(LAYERS)]
    for event in fills:
        event["cat"] = "gpu_memset"
    replay = replay_of(eager())
    replay["traceEvents"] += fills
    assessment = judge(tmp_path, replay, capture_of(trace))
    assert assessment.verdict is Verdict.PASS, broken(assessment)
    assert assessment.analysed.totals.kernels == 3 * LAYERS
    replay["traceEvents"].pop()
    assessment = judge(tmp_path, replay, capture_of(trace))
    assert assessment.verdict is Verdict.INVALID
    assert "replays aligned with the capture" in broken(assessment)
