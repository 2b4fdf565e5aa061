"""Times that contradict each other: calls that overlap and do not nest.

ROCm's profiler rounds times so that callers end before their callees (Kineto 1082). If
exactly one module fits, the launch belongs to it; otherwise the trace is invalid. The
launch never counts as outside all modules.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gatekit.records.checks import Verdict
from gatekit.traces.verdicts import Assessment, Requirement, analyse, decide
from support.profiler_traces import Document, as_profiler, broken
from support.small_traces import (
    COPY,
    EVERY,
    GEMM,
    LASTS,
    LAYERS,
    MODULE,
    call,
    capture_of,
    eager,
    module,
    ran,
    replay_of,
    start,
)

REQUIRED = Requirement(MODULE, LAYERS, 0)
# Times of a copy's launch from the module's start: all overlap it, none nests.
_ASTRIDE = {
    "leaves 1 ns after it": (LASTS - 2, LASTS + 0.001),
    "leaves 400 ns after it": (LASTS - 2, LASTS + 0.4),
    "leaves 1 us after it": (LASTS - 2, LASTS + 1),
    "leaves 5 us after it": (LASTS - 2, LASTS + 5),
    "is nearly all after it": (LASTS - 0.001, LASTS + 9),
    "enters 1 ns before it": (-0.001, 2.0),
    "enters 1 us before it": (-1.0, 2.0),
    "enters 5 us before it": (-5.0, 2.0),
    "is nearly all before it": (-9.0, 0.001),
    "lasts longer than it": (-0.001, LASTS + 0.001),
    "lasts much longer than it": (-9.0, LASTS + 9),
    "takes no time, at its start": (0.0, 0.0),
    "takes no time, at its end": (LASTS, LASTS),
}
_ROUNDED = [name for name in _ASTRIDE if "5 us" not in name and "nearly" not in name]
_ROUNDED.remove("lasts much longer than it")


def judge(
    tmp_path: Path,
    after: Document,
    before: Document | None = None,
    captures: Document | None = None,
    required: Requirement = REQUIRED,
) -> Assessment:
    def write(name: str, document: Document) -> Path:
        path = tmp_path / f"{name}.json"
        path.write_bytes(as_profiler(document))
        return path

    recorded = [write("capture", captures)] if captures else []
    one = analyse(write("after", after), required, recorded)
    if before is None:
        return decide(one, None, required)
    return decide(one, analyse(write("before", before), required, []), required)


def test_the_trace_passes_without_the_copy(tmp_path: Path) -> None:
    assessment = judge(tmp_path, eager())
    assert assessment.verdict is Verdict.PASS, broken(assessment)
    assessment = judge(tmp_path, eager(), eager(copies=((30.0, 33.0),)))
    assert assessment.verdict is Verdict.PASS, broken(assessment)


@pytest.mark.parametrize("how", _ASTRIDE)
@pytest.mark.parametrize("compared", [False, True], ids=["alone", "compared"])
def test_rounding_does_not_move_a_copy_outside(
    how: str, compared: bool, tmp_path: Path
) -> None:
    before = eager(copies=(_ASTRIDE[how], (30.0, 33.0))) if compared else None
    assessment = judge(tmp_path, eager(copies=(_ASTRIDE[how],)), before)
    if how in _ROUNDED:
        assert assessment.verdict is Verdict.FAIL
        assert assessment.analysed.totals.copies == LAYERS
    else:
        assert assessment.verdict is Verdict.INVALID
        assert "launches nest in module calls" in broken(assessment)


@pytest.mark.parametrize("how", _ASTRIDE)
def test_rounding_in_a_capture(how: str, tmp_path: Path) -> None:
    trace = eager(copies=(_ASTRIDE[how],))
    assessment = judge(tmp_path, replay_of(trace), captures=capture_of(trace))
    if how in _ROUNDED:
        assert assessment.verdict is Verdict.FAIL
        assert assessment.analysed.totals.copies == LAYERS
    else:
        assert assessment.verdict is Verdict.INVALID
        assert "capture: launches nest in module calls" in broken(assessment)


@pytest.mark.parametrize("how", _ASTRIDE)
def test_rounding_in_an_eager_step_as_capture(how: str, tmp_path: Path) -> None:
    """There, the replay is not searched for launches outside modules."""
    trace = eager(copies=(_ASTRIDE[how],))
    replay = replay_of(json.loads(json.dumps(trace)))
    assessment = judge(tmp_path, replay, captures=trace)
    expected = Verdict.FAIL if how in _ROUNDED else Verdict.INVALID
    assert assessment.verdict is expected, broken(assessment)


@pytest.mark.parametrize("how", _ROUNDED)
def test_other_kernels_with_rounded_launches(how: str, tmp_path: Path) -> None:
    """A trace with rounded times is still valid."""
    begins, ends = _ASTRIDE[how]
    trace = eager()
    for event in trace["traceEvents"]:
        if event["cat"] == "cuda_runtime" and event["args"]["kernel"] == GEMM:
            event["ts"] += begins - 20
            event["dur"] = round(ends - begins, 3)
    assessment = judge(tmp_path, trace)
    assert assessment.verdict is Verdict.PASS, broken(assessment)
    assert assessment.analysed.totals.gemms == LAYERS


@pytest.mark.parametrize(
    "times",
    [(-5.0, 0.0), (LASTS, LASTS + 5), (-5.0, -1.0), (LASTS + 0.001, LASTS + 0.001)],
)
def test_a_launch_that_has_no_time_in_common_is_outside(
    times: tuple[float, float], tmp_path: Path
) -> None:
    """It may end exactly when the module starts."""
    assessment = judge(tmp_path, eager(copies=(times,)))
    assert assessment.verdict is Verdict.PASS, broken(assessment)
    assert assessment.analysed.totals.copies == 0


def touching(begins: float, ends: float) -> Document:
    """Each module begins as the one before it ends, and one copy is launched around
    the moment in which the second does."""
    trace = eager()
    for event in trace["traceEvents"]:
        if event["cat"] == "python_function":
            event["dur"] = EVERY
    launch = call(
        "hipLaunchKernel", 99, start(1) + begins, round(ends - begins, 3), kernel=COPY
    )
    trace["traceEvents"] += [launch, ran(COPY, 99, start(1) + 1)]
    return trace


@pytest.mark.parametrize(
    "times", [(0.0, 0.0), (-0.5, 0.5), (-5.0, 5.0), (-0.001, 0.001)]
)
def test_between_modules_that_touch(times: tuple[float, float], tmp_path: Path) -> None:
    assessment = judge(tmp_path, touching(*times))
    assert assessment.verdict is Verdict.INVALID
    assert "launches nest in module calls" in broken(assessment)


@pytest.mark.parametrize("times", [(-5.0, 0.0), (-5.0, 0.001), (-0.001, 5.0), (0, 5)])
def test_one_candidate_of_modules_that_touch(
    times: tuple[float, float], tmp_path: Path
) -> None:
    assessment = judge(tmp_path, touching(*times))
    assert assessment.verdict is Verdict.FAIL
    assert assessment.analysed.totals.copies == 1


def within_layers(begins: float, ends: float) -> Document:
    """Each module is called by a layer that starts and ends that much later."""
    trace = eager()
    for layer in range(LAYERS):
        at, lasts = start(layer) + begins, round(LASTS + ends - begins, 3)
        trace["traceEvents"].insert(0, module(f"Layer_{layer}", at, lasts))
    trace["traceEvents"].append(module("Model_0", start(0) - 50, 9 * EVERY))
    return trace


@pytest.mark.parametrize(
    "times", [(-5.0, 5.0), (-5.0, -0.001), (-5.0, -1.0), (0.001, 5.0), (1.0, 5.0)]
)
def test_callers_of_modules_rounded(times: tuple[float, float], tmp_path: Path) -> None:
    assessment = judge(tmp_path, within_layers(*times))
    assert assessment.verdict is Verdict.PASS, broken(assessment)
    (check,) = [
        c for c in assessment.controls if c.name == "every parent module has one"
    ]
    assert check.found == f"{LAYERS} in calls of Layer"


def test_parents_that_have_several_each(tmp_path: Path) -> None:
    """Such as a layer with attention over time and over space."""
    trace = eager()
    trace["traceEvents"].append(module("Layer_0", start(0) - 5, 2 * EVERY - 10))
    trace["traceEvents"].append(module("Layer_1", start(2) - 5, 2 * EVERY - 10))
    name = "every parent module has one"
    assert name in broken(judge(tmp_path, trace))
    late = json.loads(json.dumps(trace["traceEvents"][:5]))
    for event in late:
        event["ts"] += 3 * EVERY
        event["name"] = event["name"].replace("Attn_0", "Attn_3")
        if "correlation" in event["args"]:
            event["args"]["correlation"] += 500
    trace["traceEvents"] += late
    assessment = judge(tmp_path, trace, required=Requirement(MODULE, LAYERS + 1, 0))
    assert assessment.verdict is Verdict.PASS, broken(assessment)
    (check,) = [control for control in assessment.controls if control.name == name]
    assert check.expected == "4 in calls of Layer, 2 in each"


@pytest.mark.parametrize(
    ("child", "copy"),
    [
        ((50.0, LASTS + 1), (LASTS, LASTS + 1)),
        ((50.0, LASTS + 0.001), (LASTS + 0.001, LASTS + 0.001)),
        ((-1.0, 5.0), (-1.0, -0.5)),
    ],
)
@pytest.mark.parametrize("deep", [False, True])
def test_launches_of_a_callee_belong_to_its_caller(
    child: tuple[float, float], copy: tuple[float, float], deep: bool, tmp_path: Path
) -> None:
    """Although the module seems to end before the linear layer that it called."""
    trace = eager(copies=(copy,))
    for layer in range(LAYERS):
        at, lasts = start(layer) + child[0], round(child[1] - child[0], 3)
        trace["traceEvents"].append(module(f"Linear_{layer}", at, lasts))
        if deep:
            again = module(f"Inner_{layer}", at, lasts)
            trace["traceEvents"].append(again)
    assessment = judge(tmp_path, trace)
    assert assessment.verdict is Verdict.FAIL
    assert assessment.analysed.totals.copies == LAYERS


@pytest.mark.parametrize("times", [(-5.0, -5.0), (5.0, 5.0)])
def test_modules_that_overlap(times: tuple[float, float], tmp_path: Path) -> None:
    assessment = judge(tmp_path, within_layers(*times))
    assert assessment.verdict is Verdict.INVALID
    assert "modules nest in modules" in broken(assessment)


def test_neighbours_that_overlap_by_rounding(tmp_path: Path) -> None:
    """The later one is not a child of the earlier one."""
    trace = within_layers(-5.0, EVERY - LASTS - 5 + 0.001)
    assessment = judge(tmp_path, trace)
    assert assessment.verdict is Verdict.PASS, broken(assessment)


def test_a_drivers_call_that_leaves_after_its_caller(tmp_path: Path) -> None:
    """Both have the same correlation id and are one launch."""
    trace = eager()
    calls = [e for e in trace["traceEvents"] if e["cat"] == "cuda_runtime"]
    for one in calls:
        inner = {**one, "cat": "cuda_driver", "name": "cuLaunchKernel"}
        inner["ts"] += 1
        inner["dur"] = round(one["dur"] - 1 + 0.001, 3)
        trace["traceEvents"].append(inner)
    assessment = judge(tmp_path, trace)
    assert assessment.verdict is Verdict.PASS, broken(assessment)


@pytest.mark.parametrize("kind", ["cuda_runtime", "python_function"])
def test_calls_that_end_before_they_start(kind: str, tmp_path: Path) -> None:
    trace = eager()
    one = next(e for e in trace["traceEvents"] if e["cat"] == kind)
    one["dur"] = -one["dur"]
    assessment = judge(tmp_path, trace)
    assert assessment.verdict is Verdict.INVALID
    assert "no call ends before it starts" in broken(assessment)


def test_a_kernel_that_was_not_launched_under_its_name(tmp_path: Path) -> None:
    """The correlation id is right, the kernel is another call's copy."""
    trace = eager(copies=((30.0, 33.0),))
    for event in trace["traceEvents"]:
        if event["cat"] == "kernel" and event["name"] == COPY:
            event["name"] = "some_other_kernel"
    assessment = judge(tmp_path, trace)
    assert assessment.verdict is Verdict.INVALID
    assert "kernels match their launches" in broken(assessment)
