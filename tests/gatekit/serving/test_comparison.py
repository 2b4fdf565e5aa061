"""Verdicts on real client output with simulated speeds."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

pytest.importorskip("scipy", reason="pip install --group gate")

from gatekit.records import runs as records
from gatekit.records.checks import Verdict
from gatekit.serving.command import ARMS, BASELINE, PATCHED, tag
from gatekit.serving.comparison import compare
from gatekit.serving.evidence import ObservedRun, of_outputs
from gatekit.serving.points import Point
from gatekit.serving.reading import Measurement, read
from gatekit.serving.results import Comparison
from overlaykit.core.errors import Finding

OUTPUTS = Path(__file__).with_name("outputs")
REAL = read(OUTPUTS / "0.5.11.jsonl")[0]
POINTS = [Point(8192, 1024, c) for c in (4, 8, 16)]
ANOTHER = Point(1024, 1024, 64)
ORIGINS = {
    arm: records.Origin(tree=f"tree of {arm}", series=series)
    for arm, series in ((BASELINE, "none"), (PATCHED, "sha256:1"))
}


def measured(point: Point, arm: str, number: int, **members: Any) -> Measurement:
    return msgspec.structs.replace(
        REAL, point=point, tag=tag(point, arm, number), **members
    )


def arms(gain: float, noise: float = 0.005, rounds: int = 6) -> list[ObservedRun]:
    """Runs of both arms; the patched arm is faster by ``gain``."""
    rng = random.Random(7)
    clock = 0.0
    found = []
    for number in range(1, rounds + 1):
        for point in POINTS:
            for arm in ARMS[:: 1 if number % 2 else -1]:
                speed = (1 + gain * (arm == PATCHED)) * rng.gauss(1, noise)
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
                    ObservedRun(
                        arm, number, one, "here", clock, ORIGINS[arm], host="node-a"
                    )
                )
    return found


def compared(runs: list[ObservedRun]) -> Comparison:
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
    found = compared(arms(gain, noise))
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
        if run.point == POINTS[1] and run.arm == PATCHED
        else run
        for run in arms(0.03)
    ]
    found = compared(runs)
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
        if run.arm == PATCHED
        else run
        for run in arms(0.03)
    ]
    found = compared(runs)
    assert found.verdict is Verdict.PASS
    assert found.headline[2].percent == pytest.approx(100, abs=2)


def test_a_single_round_decides_nothing() -> None:
    found = compared(arms(-0.3, rounds=1))
    assert found.verdict is Verdict.INCONCLUSIVE
    assert found.reasons == (
        "one round alone has no spread, so nothing can be decided",
    )


Breaking = Callable[[list[ObservedRun]], list[ObservedRun]]


def edited(place: int, **members: Any) -> Breaking:
    def change(runs: list[ObservedRun]) -> list[ObservedRun]:
        one = msgspec.structs.replace(runs[place].measurement, **members)
        return [
            *runs[:place],
            runs[place]._replace(measurement=one),
            *runs[place + 1 :],
        ]

    return change


def apart(runs: list[ObservedRun]) -> list[ObservedRun]:
    return [
        run._replace(started=(run.started or 0) + 1000 * (run.arm == PATCHED))
        for run in runs
    ]


def with_origin(
    runs: list[ObservedRun], place: int, **members: str
) -> list[ObservedRun]:
    one = runs[place]
    origin = msgspec.structs.replace(one.origin, **members)
    return [*runs[:place], one._replace(origin=origin), *runs[place + 1 :]]


INVALID: dict[str, tuple[Breaking, str]] = {
    "a fault": (
        edited(3, faults=(Finding("9 of 10 requests completed"),)),
        "9 of 10 requests completed",
    ),
    "no throughput": (edited(0, throughput=0.0), "round 1: its throughput is 0.0"),
    "time backwards": (
        edited(0, median_tpot_ms=-1.0),
        "round 1: its median TPOT is -1.0",
    ),
    "a first token at once": (
        edited(0, median_ttft_ms=0.0),
        "round 1: its median TTFT is 0.0",
    ),
    "another throughput": (
        edited(0, throughput=2 * REAL.throughput),
        "its throughput does not match its tokens and its duration",
    ),
    "another than was said": (
        lambda runs: [
            runs[0]._replace(
                client_output=msgspec.structs.replace(
                    runs[0].measurement, median_tpot_ms=REAL.median_tpot_ms * 1.2
                )
            ),
            *runs[1:],
        ],
        "its record differs from the client's own output",
    ),
    "another rate than was said": (
        lambda runs: [
            runs[0]._replace(
                client_output=msgspec.structs.replace(
                    runs[0].measurement, output_throughput=1.0, output_tokens=1
                )
            ),
            *runs[1:],
        ],
        "its record differs from the client's own output",
    ),
    "a fault that its record leaves out": (
        lambda runs: [
            runs[0]._replace(
                client_output=msgspec.structs.replace(
                    runs[0].measurement, faults=(Finding("9 of 10 completed"),)
                )
            ),
            *runs[1:],
        ],
        "round 1: 9 of 10 completed",
    ),
    "a client that ended before": (
        lambda runs: [runs[0]._replace(seconds=1e-6), *runs[1:]],
        "round 1: its client ended before its requests did",
    ),
    "fewer failures than none": (
        lambda runs: [runs[0]._replace(failed_attempts=-1), *runs[1:]],
        "round 1: its failed_attempts is -1",
    ),
    "a round before the first": (
        lambda runs: [runs[0]._replace(round=0), *runs[1:]],
        "round 0: its round is 0",
    ),
    "a run missing": (lambda runs: runs[1:], "8192/1024/4 baseline: no round 1"),
    "an arm missing": (
        lambda runs: [run for run in runs if run.arm == BASELINE],
        "8192/1024/4 patched: not run",
    ),
    "nothing": (lambda _: [], "nothing was run"),
    "a point too many": (
        edited(0, point=ANOTHER, tag=tag(ANOTHER, BASELINE, 1)),
        "1024/1024/64: it was run, but --points does not name it",
    ),
    "a name twice": (lambda runs: [*runs, runs[0]], "2 runs with one name"),
    "a run under two names": (
        lambda runs: edited(
            1,
            duration_s=runs[0].measurement.duration_s,
            median_tpot_ms=runs[0].measurement.median_tpot_ms,
        )(runs),
        "one measurement under several names",
    ),
    "another run's output": (
        edited(0, tag=tag(POINTS[0], PATCHED, 1)),
        "its output has the tag of another run",
    ),
    "no tag": (edited(0, tag=None), "its output has the tag of another run"),
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
    "a silent server": (edited(0, server={}), "the server did not report its settings"),
    "another client": (
        edited(0, client={**REAL.client, "backend": "vllm"}),
        "the client's backend differs between runs: sglang, vllm",
    ),
    "other options": (
        lambda runs: [runs[0]._replace(settings=("--top-p", "0.5")), *runs[1:]],
        "the arms' clients had different options",
    ),
    "two trees in an arm": (
        lambda runs: with_origin(runs, 4, tree="another"),
        "the baseline arm's runs differ in tree: tree of baseline (8192/1024/4 "
        "baseline round 1 in here), another (8192/1024/16 baseline round 1 in here)",
    ),
    "two images in an arm": (
        lambda runs: with_origin(runs, 1, image="sha256:2"),
        "the patched arm's runs differ in image: sha256:2 (8192/1024/4 patched round "
        "1 in here), not recorded (",
    ),
    "the other arm's series": (
        lambda runs: with_origin(runs, 1, series="none"),
        "both arms have runs of the series none",
    ),
    "one series in all": (
        lambda runs: [r._replace(origin=ORIGINS[PATCHED]) for r in runs],
        "both arms have runs of the series sha256:1",
    ),
    "two nodes for a point": (
        lambda runs: [runs[0]._replace(host="node-b"), *runs[1:]],
        "8192/1024/4: its runs are from several nodes (node-a, node-b)",
    ),
    "one arm after the other": (apart, "the arms were not interleaved"),
}


@pytest.mark.parametrize("name", INVALID)
def test_one_fault_invalidates_the_comparison(name: str) -> None:
    change, reason = INVALID[name]
    runs = arms(0.03)
    assert compared(runs).verdict is Verdict.PASS
    found = compared(change(runs))
    assert found.verdict is Verdict.INVALID
    assert any(reason in one for one in found.reasons), found.reasons
    assert not found.headline
    assert [row.point for row in found.points] == [str(point) for point in POINTS]
    assert not any(row.judged or row.outcome == "compared" for row in found.points)


@pytest.mark.parametrize(
    ("gain", "verdict"), [(0.03, Verdict.INCONCLUSIVE), (-0.05, Verdict.FAIL)]
)
def test_a_missing_point_is_reported_and_prevents_a_pass(
    gain: float, verdict: Verdict
) -> None:
    found = compared([run for run in arms(gain) if run.point != POINTS[1]])
    assert found.verdict is verdict
    outcomes = [row.outcome for row in found.points]
    assert outcomes == ["compared", "not run", "compared"]
    assert found.points[1].rounds == 0 and not found.points[1].judged
    assert "not run: 8192/1024/8" in found.reasons
    # More rounds would not help.
    assert found.rounds_to_decide is None


def test_the_result_has_the_runs_and_the_decisions() -> None:
    runs = arms(0.03)
    runs[1] = runs[1]._replace(failed_attempts=2)
    found = compared(runs)
    assert [(a.arm, a.origin, a.runs, a.hosts) for a in found.arms] == [
        (arm, ORIGINS[arm], 18, ("node-a",)) for arm in ARMS
    ]
    assert [a.failed_attempts for a in found.arms] == [0, 2]
    for row in found.points:
        assert row.rounds == found.rounds == 6
        assert [one.metric for one in row.judged] == ["throughput", "median TPOT"]
        for one in row.judged:
            assert one.decision == "non-inferior"
            assert one.noninferior_p is not None and one.harm_p is not None
            assert one.noninferior_p <= found.alpha < one.harm_p
        assert row.ttft and row.ttft.decision is None and row.ttft.low is not None
    two = compared([run._replace(origin=records.Origin()) for run in runs])
    assert two.verdict is Verdict.PASS
    assert sum("the series is not recorded" in note for note in two.notes) == 2


def test_outputs_with_a_foreign_tag(tmp_path: Path) -> None:
    """A contradicting tag is a reason; a missing tag is a note."""
    line = json.loads((OUTPUTS / "0.5.11.jsonl").read_text(encoding="utf-8"))
    point = Point(24, 8, 1)
    for name, what in {
        "cold": json.dumps(json.loads(line["tag"]) | {"warmup_requests": 0}),
        "seed": json.dumps(json.loads(line["tag"]) | {"seed": 42}),
        "none": "by hand",
    }.items():
        path = tmp_path / f"{name}.jsonl"
        path.write_text(json.dumps({**line, "tag": what}), encoding="utf-8")
        found = compare(of_outputs(BASELINE, [path]), [point], 0.02, 0.05)
        said = any(
            "its tag differs from what `bench.py run` writes" in one
            for one in found.reasons
        )
        assert said == (name != "none")
        noted = [one for one in found.notes if "taken on trust" in one]
        assert noted == (
            ["baseline: 1 outputs are not from `bench.py run`: seed, warm-up and "
             "cache flush are taken on trust"] if name == "none" else []
        )  # fmt: skip


def test_the_clients_own_outputs_are_rounds_in_order() -> None:
    paths = [OUTPUTS / f"0.5.{n}.jsonl" for n in (11, 12, 13)]
    runs = of_outputs(BASELINE, paths)
    assert [run.round for run in runs] == [1, 2, 3]
    assert {run.point for run in runs} == {Point(24, 8, 1)}
    # Their tags name the arm.
    found = compare([*runs, *of_outputs(PATCHED, paths)], [Point(24, 8, 1)], 0.02, 0.05)
    assert found.verdict is Verdict.INVALID
    assert any("its tag names the baseline arm" in one for one in found.reasons)
