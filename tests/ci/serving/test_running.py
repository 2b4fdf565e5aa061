"""``ci/bench.py`` with the real client of the pinned release, against real sockets."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

import records
import serving_stand_in
from conftest import ROOT, Pins
from overlaykit.errors import EnvironmentFailure
from serving.plan import Arm, Bench, ServingRun
from serving.points import Point
from serving.running import execute
from serving_client import lay_out
from serving_stand_in import Faults, StandIn, serving

_NEEDED = ("aiohttp", "numpy", "requests", "scipy", "tqdm")
pytestmark = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in _NEEDED),
    reason=f"bench_serving and its comparison need {', '.join(_NEEDED)}",
)
Words = list[str | Path]
Reported = tuple[int, dict[str, Any], str]


@pytest.fixture(scope="session")
def sglang(pins: Pins, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For PYTHONPATH: the pinned release's own client."""
    target = pins.bases("sglang")[0]
    return lay_out(pins.wheels[target], tmp_path_factory.mktemp("sglang"))


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, str(ROOT / "ci" / "bench.py"), *map(str, arguments)]


def bench(sglang: Path, *arguments: str | Path) -> Reported:
    done = subprocess.run(
        command(*arguments, "--json"),
        env={**os.environ, "PYTHONPATH": str(sglang)},
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert done.stdout, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    assert report["exit_code"] == done.returncode, done.stderr
    return done.returncode, report, done.stderr


@contextmanager
def both(**settings: Any) -> Iterator[tuple[StandIn, StandIn]]:
    with ExitStack() as stack:
        yield (
            stack.enter_context(serving(StandIn("a-model", **settings))),
            stack.enter_context(serving(StandIn("a-model", **settings))),
        )


def arms(baseline: StandIn, candidate: StandIn) -> list[str]:
    return ["--baseline", baseline.url, "--candidate", candidate.url]


SMALL = ("--points", "24/8/1", "16/8/2")


def test_both_arms_are_run_compared_and_never_run_again(
    sglang: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    with both() as (one, other):
        run: Words = ["run", *arms(one, other), "--out", out, "--rounds", "2", *SMALL]
        code, report, said = bench(sglang, *run)
        assert code == 0, report["findings"]
        assert "run 8 of 8: 16/8/2 " in said
        found = records.read(out / "records.jsonl", ServingRun)
        # A B, then B A at the next point; and the other way round in the next round.
        assert [(str(r.measurement.point), r.arm[0], r.round) for r in found] == [
            *[("24/8/1", "b", 1), ("24/8/1", "c", 1)],
            *[("16/8/2", "c", 1), ("16/8/2", "b", 1)],
            *[("24/8/1", "c", 2), ("24/8/1", "b", 2)],
            *[("16/8/2", "b", 2), ("16/8/2", "c", 2)],
        ]
        assert all(r.measurement.faults == () for r in found)
        assert len({r.measurement.lengths for r in found}) == 4
        # Per round and point: flushed, warmed up as wide as measured, flushed, run.
        asked = [Counter(one.paths), Counter(other.paths)]
        requests = 2 * ((1 + 10) + (2 + 20))
        assert asked == [Counter({"/generate": requests, "/flush_cache": 8})] * 2
        assert one.paths[:3] == ["/flush_cache", "/generate", "/flush_cache"]
        # The same prompts on both arms; between rounds, none but warm-up's is the same.
        assert sorted(one.prompts) == sorted(other.prompts)
        distinct = {tuple(prompt) for prompt in one.prompts}
        assert len(distinct) == 2 * (10 + 20)

        again = bench(sglang, *run)
        assert again[0] == 0 and "0 runs to make, 8 recorded" in again[2]
        assert [Counter(one.paths), Counter(other.paths)] == asked

        code, report, _ = bench(sglang, *run, "--client-options=--top-p 0.5")
        assert code == 2 and "with other options" in report["message"]

    code, report, _ = bench(sglang, "compare", out, *SMALL)
    (result,) = report["results"]
    assert result["verdict"] in ("pass", "fail", "inconclusive")
    assert code == {"pass": 0, "fail": 1, "inconclusive": 4}[result["verdict"]]
    assert [row["point"] for row in result["points"]] == ["24/8/1", "16/8/2"]
    code, report, _ = bench(sglang, "compare", out)
    assert code == 4 and report["results"][0]["verdict"] == "invalid"


def test_a_slower_candidate_fails(sglang: Path, tmp_path: Path) -> None:
    with (
        serving(StandIn("a-model", tpot_s=0.002)) as one,
        serving(StandIn("a-model", tpot_s=0.006)) as other,
    ):
        out, points = tmp_path / "out", ("--points", "16/24/1")
        code, _, _ = bench(
            sglang, "run", *arms(one, other), "--out", out, "--rounds", "3", *points
        )
        assert code == 0
    code, report, _ = bench(sglang, "compare", out, *points)
    assert code == 1, report
    shown = subprocess.run(
        command("compare", out, *points), capture_output=True, text=True, check=False
    )
    assert "NO (p 0.0" in shown.stdout
    assert "worse" in shown.stderr


def test_what_the_client_takes_for_success_is_not(sglang: Path, tmp_path: Path) -> None:
    """It exits 0 and prints a table in both cases; in the second, all ten 'completed'
    with every token asked for."""
    faults = {
        "refused": (Faults(refuse_every=5), "8 of 10 requests completed"),
        "empty": (Faults(empty_every=5), "answered without a token"),
    }
    for name, (fault, expected) in faults.items():
        with serving(StandIn("a-model", faults=fault)) as one:
            run: Words = ["run", "--baseline", one.url, "--out", tmp_path / name]
            run += ["--rounds", "1", "--points", "24/8/1"]
            code, report, _ = bench(sglang, *run)
            assert code == 4
            assert any(expected in f["what"] for f in report["findings"])
            before = len(one.paths)
            # It stays: another try until it looks well would be choosing.
            assert bench(sglang, *run)[0] == 4
            assert len(one.paths) == before
        (found,) = records.read(tmp_path / name / "records.jsonl", ServingRun)
        if name == "empty":
            assert found.measurement.completed == 10
            assert found.measurement.output_tokens >= 10 * 6


def test_a_server_that_answers_nothing_is_no_measurement(
    sglang: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    with serving(StandIn("a-model", faults=Faults(refuse_every=1))) as one:
        run: Words = ["run", "--baseline", one.url, "--out", out, *SMALL]
        code, report, _ = bench(sglang, *run)
        assert code == 5 and report["message"] == "a run could not be made"
        assert "Warmup failed" in report["findings"][0]["found"]
        assert records.read(out / "records.jsonl", ServingRun) == []
        one.faults.refuse_every = 0
        assert bench(sglang, *run, "--rounds", "1")[0] == 0


def test_a_server_that_stalls_is_waited_for_no_longer_than_told(
    sglang: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(sglang))
    with serving(StandIn("a-model", tpot_s=30)) as one:
        arm, point = Arm("baseline", one.url), Point(24, 8, 1)
        plan = Bench((arm,), (point,), 1, tmp_path / "out", run_timeout_s=4)
        with pytest.raises(EnvironmentFailure) as caught:
            list(execute(plan, lambda _: None))
        assert "no end after 4 s" in str(caught.value)
        assert len(one.prompts) == 1
    assert records.read(plan.records, ServingRun) == []


def test_a_cache_that_is_not_flushed_stops_the_run(
    sglang: Path, tmp_path: Path
) -> None:
    with serving(StandIn("a-model", faults=Faults(flush_status=400))) as one:
        code, report, _ = bench(
            sglang, "run", "--baseline", one.url, "--out", tmp_path / "out", *SMALL
        )
    assert code == 5 and report["message"] == "cannot flush the cache"
    assert one.prompts == []


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
    return port


def test_servers_are_started_in_turn_on_one_port(sglang: Path, tmp_path: Path) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    start = f"{sys.executable} {serving_stand_in.__file__} {port}"
    out = tmp_path / "out"
    run: Words = ["run", "--out", out, "--rounds", "2"]
    run += ["--points", "16/8/1", "--baseline-image", "sha256:1"]
    for arm, tpot in (("baseline", 0.002), ("candidate", 0.001)):
        run += [f"--{arm}", url, f"--{arm}-start", f"{start} {tpot}"]
    code, report, said = bench(sglang, *run)
    assert code == 0, report
    starts = [line.split()[2] for line in said.splitlines() if "starting" in line]
    assert starts == ["baseline", "candidate", "candidate", "baseline"]
    found = records.read(out / "records.jsonl", ServingRun)
    assert {r.origin.image for r in found if r.arm == "baseline"} == {"sha256:1"}
    assert len({r.origin.command for r in found}) == 2
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=5)

    # One that is up already would be measured in place of the one started.
    with serving(StandIn("a-model"), port):
        code, report, _ = bench(sglang, *run, "--rounds", "3")
    assert code == 5 and report["message"] == "the address is taken"
    # One that ends at once.
    code, report, _ = bench(
        sglang, *run, "--rounds", "3", "--candidate-start", f"{sys.executable} -c 1"
    )
    assert code == 5 and report["message"] == "a server did not start"


def test_interrupted_it_keeps_what_is_done_and_goes_on(
    sglang: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    environment = {**os.environ, "PYTHONPATH": str(sglang)}
    with both() as (one, other):
        arguments: Words = ["run", *arms(one, other), "--out", out, *SMALL]
        arguments += ["--rounds", "1"]
        process = subprocess.Popen(
            command(*arguments), env=environment, stderr=subprocess.PIPE, text=True
        )
        assert process.stderr
        for line in process.stderr:
            if line.startswith("run 2 of 4"):
                break
        time.sleep(0.3)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == 130
        process.stderr.close()
        (first,) = records.read(out / "records.jsonl", ServingRun)
        assert (first.arm, first.round) == ("baseline", 1)
        asked = len(one.prompts)
        # As a power cut leaves it: a line that was being written.
        with (out / "records.jsonl").open("ab") as file:
            file.write(b'{"kind":"serving","arm":"cand')
        code, report, said = bench(sglang, *arguments)
        assert code == 0, report
        assert "3 runs to make, 1 recorded" in said
        assert len(one.prompts) == asked + 22
    assert len(records.read(out / "records.jsonl", ServingRun)) == 4


def test_bad_input_is_told(sglang: Path, tmp_path: Path) -> None:
    url = "http://127.0.0.1:9"
    out = tmp_path / "out"
    cases: list[tuple[Words, str]] = [
        (["run", "--out", out], "name --baseline, --candidate or both"),
        (["run", "--out", out, "--baseline", "a:1"], "http:// or https:// URL"),
        (["run", "--out", out, "--baseline", url, "--points", "1/2"], "a point is"),
        (["run", "--out", out, "--baseline", url, "--points", "0/1/1"], "at least 1"),
        (
            ["run", "--out", out, "--baseline", url, "--points", "1/1/1", "1/1/1"],
            "twice",
        ),
        (["run", "--out", out, "--baseline", url, "--rounds", "0"], "at least 1"),
        (
            ["run", "--out", out, "--baseline", url, "--candidate-tree", "x"],
            "--candidate must say",
        ),
        (
            ["run", "--out", out, "--baseline", url, "--client-options=--num-prompt 1"],
            "--num-prompt is the benchmark's own option",
        ),
        (["compare", out], "no run is recorded"),
        (["compare"], "name a directory"),
        (["compare", out, "--margin", "0"], "--margin is between"),
        (["compare", out, "--alpha", "1"], "--alpha is between"),
    ]
    for arguments, expected in cases:
        code, report, _ = bench(sglang, *arguments)
        assert code == 2 and expected in report["message"], (arguments, report)
    assert not out.exists()


def test_a_dry_run_prints_every_command(sglang: Path, tmp_path: Path) -> None:
    arguments = ["--baseline", "http://a:1", "--candidate", "http://b:1"]
    code, report, _ = bench(
        sglang, "run", *arguments, "--out", tmp_path / "out", "--dry-run"
    )
    commands = report["results"][0]["commands"]
    assert code == 0 and report["dry_run"]
    assert len(commands) == len(set(commands)) == 10 * 2 * 6
    assert not (tmp_path / "out").exists()
    shown = subprocess.run(
        command("run", *arguments, "--out", tmp_path / "out", "--dry-run"),
        capture_output=True,
        text=True,
        check=True,
    )
    assert shown.stdout.splitlines()[:-1] == commands
