"""A server or a client dies: only its run is discarded and repeated."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from gatekit.process.launcher import free_port
from gatekit.records import runs as records
from gatekit.serving.plan import ServingRun
from support import serving_stand_in
from support.patience import PATIENCE_S, wait_until
from support.serving_client import (
    SMALL,
    arms,
    bench,
    both,
    command,
    environment,
)
from support.serving_stand_in import StandIn, serving

pytestmark = pytest.mark.slow("clients that hang and die are waited for")

Words = list[str | Path]


def made(out: Path) -> list[tuple[str, str, int]]:
    """The recorded runs: point, arm, failed attempts before."""
    return [
        (str(one.measurement.point), one.arm, one.failed_attempts)
        for one in records.read(out / "records.jsonl", ServingRun)
    ]


def begin(sglang: Path, arguments: Words) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command(*arguments, "--json"),
        env=environment(sglang),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def end(process: subprocess.Popen[str]) -> tuple[int, dict[str, Any]]:
    shown, _ = process.communicate(timeout=PATIENCE_S)
    report: dict[str, Any] = json.loads(shown)
    return process.returncode, report


def requests(log: Path) -> list[str]:
    """Lines of a stand-in program: its process id and a path."""
    return log.read_text(encoding="utf-8").splitlines() if log.exists() else []


def test_a_server_is_killed_within_a_run(sglang: Path, tmp_path: Path) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    start = f"{sys.executable} {serving_stand_in.__file__} {port} 0.02"
    out = tmp_path / "out"
    run: Words = ["run", "--out", out, "--rounds", "1", *SMALL]
    for arm in ("baseline", "patched"):
        run += [f"--{arm}", url, f"--{arm}-start", start]
    process = begin(sglang, run)
    log = out / "server-patched.log"
    # Flushes apart: 1 + 10 requests of the first point, 2 warm the second, 4 of its 20.
    asked = 11 + 2 + 4
    wait_until(lambda: sum("/generate" in line for line in requests(log)) >= asked)
    os.kill(int(requests(log)[0].split()[0]), signal.SIGKILL)
    code, report = end(process)
    assert code == 5 and report["message"] == "cannot complete a run"
    (finding,) = report["findings"]
    assert "16/8/2 patched round 1 produced no measurement" in finding["what"]
    assert "exit code 1, the server ended with exit code -9" in finding["found"]
    assert Path(finding["path"]).name == "16-8-2-patched-1.failed-1.log"
    kept = (out / "records.jsonl").read_bytes()
    assert made(out) == [
        ("24/8/1", "baseline", 0),
        ("16/8/2", "baseline", 0),
        ("24/8/1", "patched", 0),
    ]

    code, report, said = bench(sglang, *run)
    assert code == 0, report
    assert "1 runs to make, 3 recorded" in said
    assert made(out)[3:] == [("16/8/2", "patched", 1)]
    assert (out / "records.jsonl").read_bytes().startswith(kept)
    _, report, _ = bench(sglang, "compare", out, *SMALL)
    (result,) = report["results"]
    assert result["arms"][1]["failed_attempts"] == 1
    assert any("were repeated" in note for note in result["notes"])
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=5)


def test_a_server_started_by_the_user_is_killed(sglang: Path, tmp_path: Path) -> None:
    port, log, out = free_port(), tmp_path / "log", tmp_path / "out"
    argv = [sys.executable, serving_stand_in.__file__, str(port), "0.02"]
    run: Words = ["run", "--out", out, "--rounds", "1", "--points", "24/8/1"]
    run += ["--baseline", f"http://127.0.0.1:{port}"]
    with log.open("w") as file:
        server = subprocess.Popen(argv, stdout=file)
    try:
        wait_until(lambda: socket.socket().connect_ex(("127.0.0.1", port)) == 0)
        process = begin(sglang, run)
        wait_until(lambda: len(requests(log)) >= 2 + 1 + 3)
        server.kill()
        server.wait()
        code, report = end(process)
        assert code == 5
        assert "no server answers at" in report["findings"][0]["found"]
        assert made(out) == []
        with serving(StandIn("a-model"), port):
            assert bench(sglang, *run)[0] == 0
        assert made(out) == [("24/8/1", "baseline", 1)]
    finally:
        server.kill()
        server.wait()


def wrapper(path: Path, then: str) -> Path:
    """A script that stands for Python and runs ``then`` around the client."""
    script = f"#!/bin/sh\npython={sys.executable}\nfor output; do :; done\n{then}\n"
    path.write_text(script, encoding="utf-8")
    path.chmod(0o755)
    return path


CLIENTS = {
    "hangs": ("exec sleep 600", "still running after 5 s"),
    "fails": ('"$python" "$@"; exit 3', "exit code 3"),
    "writes nothing": (
        "echo as if; exit 0",
        "exit code 0 but no result; last line of the client",
    ),
    "writes a torn line": (
        '"$python" "$@" && head -c 500 "$output" >"$output.t" '
        '&& mv "$output.t" "$output"',
        "an invalid result",
    ),
    "writes two lines": (
        '"$python" "$@" && cat "$output" "$output" >"$output.t" '
        '&& mv "$output.t" "$output"',
        "2 results",
    ),
}


@pytest.mark.parametrize("name", CLIENTS)
def test_a_faulty_client(name: str, sglang: Path, tmp_path: Path) -> None:
    fault, expected = CLIENTS[name]
    attempts = 2 if name == "writes nothing" else 1
    python = wrapper(tmp_path / "python", f'case "$*" in *16-8-2*) {fault};; *) '
                     'exec "$python" "$@";; esac')  # fmt: skip
    out = tmp_path / "out"
    with serving(StandIn("a-model")) as one:
        run: Words = ["run", "--baseline", one.url, "--out", out, *SMALL]
        run += ["--rounds", "1", "--python", python]
        if name == "hangs":
            # Runs before the faulty one get the normal deadline.
            first: Words = [*run, "--points", SMALL[1]]
            assert bench(sglang, *first)[0] == 0
            run += ["--run-deadline", "5"]
        for attempt in range(1, attempts + 1):
            code, report, _ = bench(sglang, *run)
            assert code == 5 and report["message"] == "cannot complete a run"
            (finding,) = report["findings"]
            assert expected in finding["found"]
            assert Path(finding["path"]).name == (
                f"16-8-2-baseline-1.failed-{attempt}.log"
            )
            assert made(out) == [("24/8/1", "baseline", 0)]
        wrapper(python, 'exec "$python" "$@"')
        assert bench(sglang, *run, "--run-deadline", str(PATIENCE_S))[0] == 0
    assert made(out) == [("24/8/1", "baseline", 0), ("16/8/2", "baseline", attempts)]


def test_a_client_is_killed(sglang: Path, tmp_path: Path) -> None:
    number, out = tmp_path / "number", tmp_path / "out"
    python = wrapper(tmp_path / "python", f'echo $$ >{number}; exec "$python" "$@"')
    with both(tpot_s=0.02) as (one, other):
        run: Words = ["run", *arms(one, other), "--out", out, "--rounds", "1"]
        run += ["--points", "24/8/1", "--python", python]
        process = begin(sglang, run)
        wait_until(lambda: len(other.prompts) >= 4)
        os.kill(int(number.read_text()), signal.SIGKILL)
        code, report = end(process)
        assert code == 5
        assert report["findings"][0]["found"].startswith("signal 9")
        assert made(out) == [("24/8/1", "baseline", 0)]
        asked = len(one.prompts)
        assert bench(sglang, *run)[0] == 0
        assert len(one.prompts) == asked
    assert made(out)[1:] == [("24/8/1", "patched", 1)]
