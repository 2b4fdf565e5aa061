"""Verdicts on runs that are the real client's but for their speeds."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

pytest.importorskip("scipy", reason="requirements-gate.txt is not installed")

import records
from serving.command import ARMS, BASELINE, CANDIDATE, tag
from serving.comparison import Comparison, Verdict, compare
from serving.evidence import Observed, of_outputs
from serving.points import TEN, Point
from serving.reading import Measurement, read

OUTPUTS = Path(__file__).with_name("outputs")
REAL = read(OUTPUTS / "0.5.11.jsonl")[0]
POINTS = TEN[:3]


def measured(point: Point, arm: str, number: int, **members: Any) -> Measurement:
    return msgspec.structs.replace(
        REAL, point=point, tag=tag(point, arm, number), **members
    )


def arms(gain: float, noise: float = 0.005, rounds: int = 6) -> list[Observed]:
    """Both arms; the candidate's speed is ``gain`` more."""
    rng = random.Random(7)
    clock = 0.0
    found = []
    for number in range(1, rounds + 1):
        for point in POINTS:
            for arm in ARMS[:: 1 if number % 2 else -1]:
                speed = (1 + gain * (arm == CANDIDATE)) * rng.gauss(1, noise)
                clock += 1
                one = measured(
                    point,
                    arm,
                    number,
                    throughput=REAL.throughput * speed,
                    median_tpot_ms=REAL.median_tpot_ms / speed,
                    median_ttft_ms=REAL.median_ttft_ms * rng.gauss(1, noise),
                    duration_s=REAL.duration_s / speed,
                )
                found.append(
                    Observed(arm, number, one, "here", clock, records.Origin())
                )
    return found


def judged(runs: list[Observed]) -> Comparison:
    return compare(runs, POINTS, 0.02, 0.05)


@pytest.mark.parametrize(
    ("gain", "noise", "verdict"),
    [
        (0.03, 0.005, Verdict.PASS),
        (0.0, 0.002, Verdict.PASS),
        (-0.05, 0.005, Verdict.FAIL),
        (0.01, 0.03, Verdict.INCONCLUSIVE),
    ],
)
def test_verdicts(gain: float, noise: float, verdict: Verdict) -> None:
    found = judged(arms(gain, noise))
    assert found.verdict is verdict
    assert bool(found.reasons) == (verdict is not Verdict.PASS)
    throughput, tpot, _ = found.headline
    assert throughput.low is not None and throughput.high is not None
    assert throughput.low < throughput.percent < throughput.high
    # Speed and time mirror each other here.
    both = (1 + throughput.percent / 100) * (1 + tpot.percent / 100)
    assert both == pytest.approx(1, abs=1e-5)
    if noise <= 0.005:
        assert throughput.percent == pytest.approx(100 * gain, abs=0.5)
    if verdict is Verdict.INCONCLUSIVE:
        assert found.rounds_to_decide is not None and found.rounds_to_decide > 6


def test_one_slow_point_fails_and_is_named() -> None:
    runs = [
        run._replace(
            measurement=msgspec.structs.replace(
                run.measurement, median_tpot_ms=run.measurement.median_tpot_ms * 1.1
            )
        )
        if run.point == POINTS[1] and run.arm == CANDIDATE
        else run
        for run in arms(0.03)
    ]
    found = judged(runs)
    assert found.verdict is Verdict.FAIL
    (reason,) = found.reasons
    assert str(POINTS[1]) in reason and "median TPOT" in reason


def test_ttft_is_advisory() -> None:
    runs = [
        run._replace(
            measurement=msgspec.structs.replace(
                run.measurement, median_ttft_ms=run.measurement.median_ttft_ms * 2
            )
        )
        if run.arm == CANDIDATE
        else run
        for run in arms(0.03)
    ]
    found = judged(runs)
    assert found.verdict is Verdict.PASS
    assert found.headline[2].percent == pytest.approx(100, abs=2)


def test_a_single_round_decides_nothing() -> None:
    found = judged(arms(-0.3, rounds=1))
    assert found.verdict is Verdict.INCONCLUSIVE
    assert found.reasons == ("a single round has no spread to judge by",)


Breaking = Callable[[list[Observed]], list[Observed]]


def edited(place: int, **members: Any) -> Breaking:
    def change(runs: list[Observed]) -> list[Observed]:
        one = msgspec.structs.replace(runs[place].measurement, **members)
        return [
            *runs[:place],
            runs[place]._replace(measurement=one),
            *runs[place + 1 :],
        ]

    return change


def apart(runs: list[Observed]) -> list[Observed]:
    return [
        run._replace(started=(run.started or 0) + 1000 * (run.arm == CANDIDATE))
        for run in runs
    ]


INVALID: dict[str, tuple[Breaking, str]] = {
    "a fault": (
        edited(3, faults=("9 of 10 requests completed",)),
        "9 of 10 requests completed",
    ),
    "a run missing": (lambda runs: runs[1:], "8192/1024/4 baseline: no round 1"),
    "a point missing": (
        lambda runs: [run for run in runs if run.point != POINTS[2]],
        "8192/1024/16 baseline: not run",
    ),
    "an arm missing": (
        lambda runs: [run for run in runs if run.arm == BASELINE],
        "8192/1024/4 candidate: not run",
    ),
    "nothing": (lambda _: [], "8192/1024/4 baseline: not run"),
    "a point too many": (
        edited(0, point=TEN[9], tag=tag(TEN[9], BASELINE, 1)),
        "1024/1024/64: it was run, but is not among the points asked for",
    ),
    "a name twice": (lambda runs: [*runs, runs[0]], "2 runs of one name"),
    "a run under two names": (
        lambda runs: edited(
            1,
            duration_s=runs[0].measurement.duration_s,
            median_tpot_ms=runs[0].measurement.median_tpot_ms,
        )(runs),
        "one measurement under several names",
    ),
    "another run's output": (
        edited(0, tag=tag(POINTS[0], CANDIDATE, 1)),
        "its output is tagged as another run",
    ),
    "no tag": (edited(0, tag=None), "its output is tagged as another run"),
    "other lengths": (edited(0, lengths="sha256:0"), "did not do the same work"),
    "fewer tokens": (edited(0, output_tokens=1), "did not do the same work"),
    "another server": (
        edited(0, server={**REAL.server, "tp_size": "4"}),
        "the server's tp_size differs between runs: 4, 8",
    ),
    "a setting less": (
        edited(0, server={"tp_size": "8", "version": '"0.0.0"'}),
        "the server's model_path differs between runs",
    ),
    "a silent server": (edited(0, server={}), "the server did not tell its settings"),
    "another client": (
        edited(0, client={**REAL.client, "backend": "vllm"}),
        "the client's backend differs between runs: sglang, vllm",
    ),
    "other options": (
        lambda runs: [runs[0]._replace(settings=("--top-p", "0.5")), *runs[1:]],
        "the arms' clients had other options",
    ),
    "two trees in an arm": (
        lambda runs: [
            runs[0]._replace(origin=records.Origin(tree="sha256:1")),
            *runs[1:],
        ],
        "the baseline's runs are of different trees, images or commands",
    ),
    "one arm after the other": (apart, "the arms were not interleaved"),
}


@pytest.mark.parametrize("name", INVALID)
def test_what_does_not_fit_makes_all_invalid(name: str) -> None:
    change, reason = INVALID[name]
    runs = arms(0.03)
    assert judged(runs).verdict is Verdict.PASS
    found = judged(change(runs))
    assert found.verdict is Verdict.INVALID
    assert any(reason in one for one in found.reasons), found.reasons
    assert not found.headline and not found.points


def test_the_clients_own_outputs_are_rounds_in_order() -> None:
    paths = [OUTPUTS / f"0.5.{n}.jsonl" for n in (11, 12, 13)]
    runs = of_outputs(BASELINE, paths)
    assert [run.round for run in runs] == [1, 2, 3]
    assert {run.point for run in runs} == {Point(24, 8, 1)}
    # They say themselves whose they are.
    found = compare(
        [*runs, *of_outputs(CANDIDATE, paths)], [Point(24, 8, 1)], 0.02, 0.05
    )
    assert found.verdict is Verdict.INVALID
    assert any("tagged as the baseline's" in one for one in found.reasons)
