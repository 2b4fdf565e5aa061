"""No process outlives the gate: real processes, ended in every way."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import ROOT
from gatekit.process.launcher import free_port, serving
from gatekit.records.stage import Serve
from support.patience import PATIENCE_S, wait_until
from support.processes import alive

KEEPER = ROOT / "ci" / "gatekit" / "process" / "keeper.py"
# A server that starts a worker in its own session, orphans it, and ignores SIGTERM if
# its argument says so.
TREE = """
import os, signal, subprocess, sys, time
notes, stubborn = sys.argv[1], sys.argv[2] == "stubborn"
def deaf():
    if stubborn:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
def note():
    with open(notes, "a") as file:
        file.write(f"{os.getpid()}\\n")
deaf(); note()
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        note()
        time.sleep(600)
    os._exit(0)
os.wait()
print("up", flush=True)
time.sleep(600)
"""

# Starts the keeper and is then killed.
HOLDER = """
import subprocess, sys, time
p = subprocess.Popen(sys.argv[1:], stdin=subprocess.PIPE)
time.sleep(600)
"""


def tree(tmp_path: Path, how: str = "willing") -> tuple[subprocess.Popen[bytes], Path]:
    notes = tmp_path / "pids"
    process = subprocess.Popen(
        [sys.executable, str(KEEPER), sys.executable, "-c", TREE, str(notes), how],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout and process.stdout.readline() == b"up\n"
    wait_until(lambda: len(pids(notes)) == 2)
    return process, notes


def pids(notes: Path) -> list[int]:
    return [int(line) for line in notes.read_text().split()] if notes.exists() else []


def gone(notes: Path) -> bool:
    return not any(map(alive, pids(notes)))


def test_closing_the_pipe_ends_command_and_orphans(tmp_path: Path) -> None:
    process, notes = tree(tmp_path)
    assert process.stdin
    process.stdin.close()
    assert process.wait(PATIENCE_S) == 128 + signal.SIGTERM
    assert gone(notes)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signal_ends_command_and_orphans(
    tmp_path: Path, number: signal.Signals
) -> None:
    process, notes = tree(tmp_path)
    process.send_signal(number)
    process.wait(PATIENCE_S)
    assert gone(notes)


def test_command_does_not_outlive_a_killed_keeper(tmp_path: Path) -> None:
    process, notes = tree(tmp_path)
    server, orphan = pids(notes)
    process.kill()
    process.wait(PATIENCE_S)
    wait_until(lambda: not alive(server))
    # Only the keeper knew of the orphan, so the test kills it.
    os.kill(orphan, signal.SIGKILL)


def test_killing_the_holder_of_the_pipe_ends_all(tmp_path: Path) -> None:
    """Like the gate that is killed by ``kill -9``."""
    notes = tmp_path / "pids"
    command = [sys.executable, str(KEEPER), sys.executable, "-c", TREE]
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, *command, str(notes), "willing"],
        stdout=subprocess.DEVNULL,
    )
    wait_until(lambda: len(pids(notes)) == 2)
    process.kill()
    process.wait(PATIENCE_S)
    wait_until(lambda: gone(notes))


@pytest.mark.parametrize("how", ["it ends", "the pipe ends", "a signal", "killed"])
def test_after_commands_always_run(how: str, tmp_path: Path) -> None:
    """They remove a container however the command ends, even if the gate is killed."""
    place, second = tmp_path / "with space", tmp_path / "second"
    started = tmp_path / "started"
    after = (f"touch '{place}'", "no-such-command", f"touch '{second}'")
    words = [sys.executable, str(KEEPER)]
    words += [word for one in after for word in ("--after", one)]
    lasting = ["sh", "-c", 'touch "$0" && exec sleep 600', str(started)]
    command = ["true"] if how == "it ends" else lasting
    held = [sys.executable, "-c", HOLDER] if how == "killed" else []
    process = subprocess.Popen([*held, *words, *command], stdin=subprocess.PIPE)
    assert process.stdin
    try:
        if how != "it ends":
            wait_until(started.exists)
            assert not place.exists()
        if how == "a signal":
            process.terminate()
        elif how == "killed":
            process.kill()
        elif how == "the pipe ends":
            process.stdin.close()
        wait_until(second.exists)
        assert place.exists()
    finally:
        process.kill()
        process.wait(PATIENCE_S)


def test_server_container_is_removed(tmp_path: Path) -> None:
    port, place = free_port(), tmp_path / "taken away"
    words = (sys.executable, "-m", "http.server", "--bind", "127.0.0.1", str(port))
    serve = Serve(words, health="/", deadline_s=PATIENCE_S, port=port)
    after = [["touch", str(place)]]
    with serving(serve, tmp_path / "log", "a server", after) as process:
        assert process.poll() is None and not place.exists()
    assert place.exists()


def test_process_that_ignores_sigterm_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = KEEPER.read_text().replace("_GRACE_S = 20", "_GRACE_S = 1")
    assert source != KEEPER.read_text()
    impatient = tmp_path / "keeper.py"
    impatient.write_text(source)
    monkeypatch.setattr(sys.modules[__name__], "KEEPER", impatient)
    process, notes = tree(tmp_path, "stubborn")
    assert process.stdin
    process.stdin.close()
    assert process.wait(PATIENCE_S) == 128 + signal.SIGKILL
    assert gone(notes)


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (["true"], 0),
        (["sh", "-c", "exit 7"], 7),
        (["sh", "-c", "kill -9 $$"], 137),
        (["no-such-command"], 127),
    ],
)
def test_exit_code_is_that_of_the_command(command: list[str], code: int) -> None:
    with subprocess.Popen(
        [sys.executable, str(KEEPER), *command],
        stdin=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as process:
        assert process.wait(PATIENCE_S) == code
