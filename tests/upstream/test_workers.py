"""A worker ends with the process that started it, however that one ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import ROOT, give_modules
from support.patience import PATIENCE_S, wait_until
from support.processes import alive, family

# A pool whose two jobs note their process; they then work until the end of the test in
# a scratch folder, or are done.
_PARENT = """
import os, sys, tempfile, time
from pathlib import Path

from upstream.workers import job, pool

def work(folder, how):
    with tempfile.TemporaryDirectory(dir=folder, prefix="scratch"):
        (folder / f"{os.getpid()}.pid").touch()
        while how == "busy" or len(list(folder.glob("*.pid"))) < 2:
            time.sleep(0.02)

if __name__ == "__main__":
    folder = Path(sys.argv[1])
    with pool() as workers:
        jobs = [workers.submit(job, work, folder, sys.argv[2]) for _ in range(2)]
        if sys.argv[2] == "idle":
            for one in jobs:
                one.result()
        print("up", flush=True)
        time.sleep(3600)
"""


@pytest.mark.parametrize("how", ["busy", "idle"])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_workers_end_and_leave_nothing(
    how: str, number: signal.Signals, tmp_path: Path
) -> None:
    script, folder = tmp_path / "parent.py", tmp_path / "notes"
    script.write_text(_PARENT)
    folder.mkdir()
    parent = subprocess.Popen(
        [sys.executable, str(script), str(folder), how],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT / "scripts")},
    )
    assert parent.stdout and parent.stdout.readline() == b"up\n"
    wait_until(lambda: len(list(folder.glob("*.pid"))) == 2)
    workers = [int(note.stem) for note in folder.glob("*.pid")]
    assert all(map(alive, workers))
    parent.send_signal(number)
    assert parent.wait(PATIENCE_S) == -number
    wait_until(lambda: not any(map(alive, workers)))
    assert not list(folder.glob("scratch*"))


def test_drift_is_killed(carrier: Path) -> None:
    """The verb itself, while its workers read releases."""
    give_modules(carrier)
    releases = [w for v in ("0.5.12", "0.5.13") for w in ("--release", v)]
    verb = subprocess.Popen(
        [sys.executable, str(carrier / "scripts" / "drift.py"), *releases],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    workers: set[int] = set()

    def started() -> bool:
        workers.update(children(verb.pid))
        assert verb.poll() is None, "drift ended before it started two workers"
        return len(workers) == 2

    wait_until(started)
    verb.kill()
    verb.wait(PATIENCE_S)
    wait_until(lambda: not any(map(alive, workers)))


def children(parent: int) -> set[int]:
    """The worker processes that a process has started."""
    found = set()
    for pid, _ in family(parent):
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            continue
        if b"spawn_main" in words:
            found.add(pid)
    return found
