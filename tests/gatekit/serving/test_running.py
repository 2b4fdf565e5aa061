"""``ci/bench.py`` with the real client of the pinned release, against real sockets."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from conftest import ROOT
from gatekit.process.launcher import free_port
from gatekit.records import runs as records
from gatekit.serving.plan import ServingRun
from support import serving_stand_in
from support.patience import PATIENCE_S
from support.serving_client import (
    SMALL,
    arms,
    bench,
    both,
    command,
    environment,
)
from support.serving_stand_in import Faults, StandIn, serving

pytestmark = pytest.mark.slow("SGLang's own benchmark client runs")

Words = list[str | Path]


def test_both_arms_run_once_and_are_compared(sglang: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with both() as (one, other):
        run: Words = ["run", *arms(one, other), "--out", out, "--rounds", "2", *SMALL]
        code, report, said = bench(sglang, *run)
        assert code == 0, report["findings"]
        assert "run 8 of 8: 16/8/2 " in said
        found = records.read(out / "records.jsonl", ServingRun)
        # A B, then B A at the next point; and the other way round in the next round.
        assert [(str(r.measurement.point), r.arm[0], r.round) for r in found] == [
            *[("24/8/1", "b", 1), ("24/8/1", "p", 1)],
            *[("16/8/2", "p", 1), ("16/8/2", "b", 1)],
            *[("24/8/1", "p", 2), ("24/8/1", "b", 2)],
            *[("16/8/2", "b", 2), ("16/8/2", "p", 2)],
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
        assert code == 2 and "contains runs with a different setup" in report["message"]
        (finding,) = report["findings"]
        assert (finding["expected"], finding["found"]) == ("--top-p 0.5", "not given")

    code, report, _ = bench(sglang, "compare", out, *SMALL)
    (result,) = report["results"]
    assert result["verdict"] in ("pass", "fail", "inconclusive")
    assert code == {"pass": 0, "fail": 1, "inconclusive": 4}[result["verdict"]]
    assert [row["point"] for row in result["points"]] == ["24/8/1", "16/8/2"]

    # What is recorded is held against what the client wrote.
    path = out / "records.jsonl"
    text = path.read_text(encoding="utf-8")
    tpot = f'"median_tpot_ms":{found[0].measurement.median_tpot_ms}'
    for there, put, expected in (
        (tpot, '"median_tpot_ms":0.5', (4, "invalid: 0 of 2 points compared")),
        (
            "sglang.bench_serving",
            "another",
            (2, "not a command of sglang.bench_serving"),
        ),
        ('"schema":1', '"schema":2', (2, f"{path}:1: the record has schema 2, not 1")),
    ):
        assert there in text
        path.write_text(text.replace(there, put, 1), encoding="utf-8")
        code, report, _ = bench(sglang, "compare", out, *SMALL)
        assert code == expected[0] and expected[1] in report["message"], report
    path.write_text(text.replace(tpot, '"median_tpot_ms":0.5'), encoding="utf-8")
    reasons = bench(sglang, "compare", out, *SMALL)[1]["results"][0]["reasons"]
    assert reasons == [
        "24/8/1 baseline round 1: its record differs from the client's own output"
    ]


def test_a_patched_arm_that_is_slower_fails(sglang: Path, tmp_path: Path) -> None:
    # So far apart that three rounds decide, however unequal a busy machine makes them.
    with (
        serving(StandIn("a-model", tpot_s=0.002)) as one,
        serving(StandIn("a-model", tpot_s=0.08)) as other,
    ):
        out, points = tmp_path / "out", ("--points", "16/8/1")
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


def test_failures_that_the_client_reports_as_success(
    sglang: Path, tmp_path: Path
) -> None:
    """The client exits 0 and prints a table in both cases; in the second, all ten are
    'completed' with every requested token."""
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
            # The run is kept: repeating it until it looks good would bias the result.
            assert bench(sglang, *run)[0] == 4
            assert len(one.paths) == before
        points = ("--points", "24/8/1")
        code, report, _ = bench(sglang, "compare", tmp_path / name, *points)
        assert code == 4 and report["results"][0]["verdict"] == "invalid"
        assert any(expected in why for why in report["results"][0]["reasons"])
        (found,) = records.read(tmp_path / name / "records.jsonl", ServingRun)
        if name == "empty":
            assert found.measurement.completed == 10
            assert found.measurement.output_tokens >= 10 * 6


def test_a_server_without_answers_gives_no_measurement(
    sglang: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    with serving(StandIn("a-model", faults=Faults(refuse_every=1))) as one:
        run: Words = ["run", "--baseline", one.url, "--out", out, *SMALL]
        code, report, _ = bench(sglang, *run)
        assert code == 5 and report["message"] == "cannot complete a run"
        assert "Warmup failed" in report["findings"][0]["found"]
        assert records.read(out / "records.jsonl", ServingRun) == []
        one.faults.refuse_every = 0
        assert bench(sglang, *run, "--rounds", "1")[0] == 0


def test_a_cache_that_is_not_flushed_stops_the_run(
    sglang: Path, tmp_path: Path
) -> None:
    with serving(StandIn("a-model", faults=Faults(flush_status=400))) as one:
        code, report, _ = bench(
            sglang, "run", "--baseline", one.url, "--out", tmp_path / "out", *SMALL
        )
    assert code == 5 and report["message"] == "cannot flush the cache"
    assert one.prompts == []


def test_servers_are_started_in_turn_on_one_port(sglang: Path, tmp_path: Path) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    start = f"{sys.executable} {serving_stand_in.__file__} {port}"
    out = tmp_path / "out"
    run: Words = ["run", "--out", out, "--rounds", "2"]
    run += ["--points", "16/8/1", "--baseline-image", "sha256:1"]
    for arm, tpot in (("baseline", 0.002), ("patched", 0.001)):
        run += [f"--{arm}", url, f"--{arm}-start", f"{start} {tpot}"]
    code, report, said = bench(sglang, *run)
    assert code == 0, report
    starts = [line.split()[2] for line in said.splitlines() if "starting" in line]
    assert starts == ["baseline", "patched", "patched", "baseline"]
    found = records.read(out / "records.jsonl", ServingRun)
    assert {r.origin.image for r in found if r.arm == "baseline"} == {"sha256:1"}
    assert len({r.origin.command for r in found}) == 2
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=5)

    # A server already running there would be measured instead.
    with serving(StandIn("a-model"), port):
        code, report, _ = bench(sglang, *run, "--rounds", "3")
    assert code == 5 and report["message"] == "the address is in use"
    # One that ends at once.
    code, report, _ = bench(
        sglang, *run, "--out", tmp_path, "--patched-start", f"{sys.executable} -c 1"
    )
    assert code == 5 and report["message"] == "a server did not start"


def test_an_interrupted_benchmark_resumes(sglang: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with both() as (one, other):
        arguments: Words = ["run", *arms(one, other), "--out", out, *SMALL]
        arguments += ["--rounds", "1"]
        process = subprocess.Popen(
            command(*arguments, "--json"),
            env=environment(sglang),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stderr
        for line in process.stderr:
            if line.startswith("run 2 of 4"):
                break
        time.sleep(0.3)
        process.send_signal(signal.SIGINT)
        shown, _ = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 130
        report = json.loads(shown)
        assert "run the same command again to resume" in report["message"]
        assert len(report["results"][0]["runs"]) == 1
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


def test_bad_input(sglang: Path, tmp_path: Path) -> None:
    url = "http://127.0.0.1:9"
    out = tmp_path / "out"
    run: Words = ["run", "--out", out]
    one: Words = [*run, "--baseline", url]
    text, points = tmp_path / "text.toml", tmp_path / "points.toml"
    text.write_text("bench = 1", encoding="utf-8")
    points.write_text("[bench]\npoints = [[1, 0, 1]]", encoding="utf-8")
    cases: list[tuple[Words, str]] = [
        (run, "give --baseline or --patched, or both"),
        ([*run, "--baseline", "a:1"], "http:// or https:// URL"),
        ([*run, "--baseline", "http://"], "http:// or https:// URL"),
        ([*run, "--baseline", f"{url} "], "http:// or https:// URL"),
        ([*run, "--baseline", "http://[::1"], "http:// or https:// URL"),
        ([*run, "--baseline", "http://a:70000"], "http:// or https:// URL"),
        ([*one, "--patched", f"{url}/"], "both arms are served at one URL"),
        (
            [*one, "--patched", url, "--patched-start", "serve"],
            "both arms are served at one URL",
        ),
        ([*one, "--points", "1/2"], "a point is"),
        ([*one, "--points", "0/1/1"], "at least 1"),
        ([*one, "--points", "1/1/1", "1/1/1"], "twice"),
        ([*one, "--points", text], "contains no points"),
        ([*one, "--points", points], "at least 1"),
        ([*one, "--rounds", "0"], "at least 1"),
        ([*one, "--run-deadline", "0"], "must be more than 0"),
        ([*one, "--patched-tree", "x"], "--patched is missing"),
        (
            [*one, "--client-options=--num-prompt 1"],
            "--num-prompt is set by the benchmark and cannot be given",
        ),
        (
            [*one, "--client-options=--model 'a"],
            "--client-options is not a valid command line",
        ),
        (
            [*one, "--baseline-start", "a 'b"],
            "--baseline-start is not a valid command line",
        ),
        ([*one, "--baseline-source", ROOT], "contains no target"),
        (
            [*one, "--baseline-source", ROOT, "--baseline-tree", "x"],
            "cannot be combined with --baseline-tree",
        ),
        (["compare", out], "no run is recorded"),
        (
            ["compare", out, tmp_path / "." / "out"],
            "each directory can be named only once",
        ),
        (["compare"], "expected either directories of run"),
        (["compare", out, "--baseline", text], "expected either directories of run"),
        (["compare", out, "--margin", "0"], "--margin must be between"),
        (["compare", out, "--alpha", "1"], "--alpha must be between"),
    ]
    for arguments, expected in cases:
        if "--points" not in arguments:
            arguments = [*arguments, "--points", "8/8/1"]
        code, report, _ = bench(sglang, *arguments)
        assert code == 2 and expected in report["message"], (arguments, report)
    assert not out.exists()


def test_a_dry_run_prints_every_command(sglang: Path, tmp_path: Path) -> None:
    profile = tmp_path / "profile.toml"
    profile.write_text(
        "about = 'more'\n[bench]\nrounds = 1\npoints = [[8192, 1024, 4], [8, 8, 1]]",
        encoding="utf-8",
    )
    run: Words = ["run", "--out", tmp_path / "out", "--dry-run", "--points", profile]
    urls = ["--baseline", "http://a:1", "--patched", "http://b:1"]
    code, report, _ = bench(sglang, *run, *urls)
    commands = report["results"][0]["commands"]
    assert code == 0 and report["dry_run"]
    assert len(commands) == len(set(commands)) == 2 * 2 * 6
    assert "--random-input-len 8192" in commands[0]
    assert not (tmp_path / "out").exists()
    shown = subprocess.run(
        command(*run, *urls), capture_output=True, text=True, check=True
    )
    assert shown.stdout.splitlines()[:-1] == commands
    code, report, _ = bench(sglang, *run, *urls, "--patched-start", "env A=1 serve.sh")
    commands = report["results"][0]["commands"]
    starts = [n for n, one in enumerate(commands) if one.startswith("env A=1 serve.sh")]
    # Baseline, patched; patched, which is started anew, baseline.
    assert starts == [2, 5, 12, 15, 22, 25]


def test_unwritable_folders_lose_nothing(sglang: Path, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    with serving(StandIn("a-model")) as one:
        run: Words = ["run", "--baseline", one.url, *SMALL, "--rounds", "1"]
        code, report, _ = bench(sglang, *run, "--out", file / "out")
        assert code == 5 and str(file) in report["message"]
        out = tmp_path / "out"
        # In the place of the second run's output.
        (out / "raw" / "16-8-2-baseline-1.jsonl").mkdir(parents=True)
        code, report, _ = bench(sglang, *run, "--out", out)
        assert code == 5 and "cannot write" in report["message"]
        (kept,) = records.read(out / "records.jsonl", ServingRun)
        assert str(kept.measurement.point) == "24/8/1"


def test_two_benchmarks_in_one_folder(sglang: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with serving(StandIn("a-model", tpot_s=30)) as one:
        run: Words = ["run", "--baseline", one.url, *SMALL, "--out", out]
        first = subprocess.Popen(
            command(*run), env=environment(sglang), stderr=subprocess.PIPE, text=True
        )
        try:
            assert first.stderr
            for line in first.stderr:
                if line.startswith("run 1 of"):
                    break
            code, report, _ = bench(sglang, *run)
        finally:
            first.terminate()
            first.communicate(timeout=PATIENCE_S)
    assert code == 5 and f"{out} is in use" in report["message"]
    assert f"pid {first.pid} on " in report["findings"][0]["found"]
    assert first.returncode == 130


def test_points_from_several_nodes(sglang: Path, tmp_path: Path) -> None:
    """Each node runs both arms of its point; one comparison over all."""
    points = ("24/8/1", "16/8/2")
    outs = [tmp_path / name for name in ("node-a", "node-b")]
    with both(tpot_s=0.002) as (one, other):
        series = ["--baseline-series", "none", "--patched-series", "sha256:1"]
        run: Words = ["run", *arms(one, other), *series, "--rounds", "2"]
        for out, point in zip(outs, points, strict=True):
            here: Words = ["--out", out, "--points", point]
            assert bench(sglang, *run, *here, "--host", out.name)[0] == 0
        # The same command on another host or with another series is a different run.
        first: Words = [*run, "--out", outs[0], "--points", points[0], "--rounds", "3"]
        wrong = [
            (["--host", "node-c"], "on node-a"),
            (["--host", "node-a", "--patched-series", "sha256:2"], "series sha256:1"),
        ]
        for changed, recorded in wrong:
            code, report, _ = bench(sglang, *first, *changed)
            assert code == 2 and recorded in report["findings"][0]["found"]
            assert "contains runs with a different setup" in report["message"]

    code, report, _ = bench(sglang, "compare", *outs, "--points", *points)
    (result,) = report["results"]
    assert result["verdict"] in ("pass", "fail", "inconclusive"), result["reasons"]
    assert [row["outcome"] for row in result["points"]] == ["compared"] * 2
    assert [(a["arm"], a["runs"], a["hosts"]) for a in result["arms"]] == [
        ("baseline", 4, ["node-a", "node-b"]),
        ("patched", 4, ["node-a", "node-b"]),
    ]
    assert [a["origin"]["series"] for a in result["arms"]] == ["none", "sha256:1"]

    # If a node never started, the others are compared, but do not pass.
    missing = tmp_path / "node-c"
    more: Words = ["compare", *outs, missing, "--points", *points, "8/8/1"]
    code, report, _ = bench(sglang, *more, "--margin", "99")
    (result,) = report["results"]
    assert result["verdict"] in ("inconclusive", "fail")
    assert [row["outcome"] for row in result["points"]][2] == "not run"
    assert "not run: 8/8/1" in result["reasons"]
    assert f"no run is recorded in {missing}" in result["notes"]
    shown = subprocess.run(command(*more), capture_output=True, text=True, check=False)
    assert any(
        line.split() == ["8/8/1", "not", "run"] for line in shown.stdout.splitlines()
    )

    # Half of a point: an arm that was not run.
    path = outs[1] / "records.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    path.write_text("".join(x for x in lines if '"arm":"baseline"' in x), "utf-8")
    code, report, _ = bench(sglang, "compare", *outs, "--points", *points)
    (result,) = report["results"]
    assert code == 4 and result["verdict"] == "invalid"
    assert "16/8/2 patched: not run" in result["reasons"]
    assert [row["outcome"] for row in result["points"]] == ["not compared"] * 2
