"""Several processes on one tree: one succeeds, the others name the process that holds
it."""

from __future__ import annotations

import itertools
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from faults.conftest import Pair
from faults.harness import APPLY, VERBS, Child, apply, copy, count_writes, start
from faults.test_kill import check_whole


def test_refused_while_another_holds_the_tree(pair: Pair, room: Path) -> None:
    """The first process is stopped at a write, after the three that write its name."""
    points = count_writes(room, pair.old)
    hows = itertools.cycle(VERBS)
    for point in range(4, points, 4):
        tree = copy(pair.old, room / "tree")
        first = start(
            room, tree, at=point, mischief=lambda: os.kill(os.getpid(), signal.SIGSTOP)
        )
        assert first.stopped()
        how = next(hows)
        second = apply(room, "--json", *how, tree)
        os.kill(first.pid, signal.SIGCONT)
        done = first.wait()
        assert done.code == 0, done.text
        assert not check_whole(tree, pair.before, pair.after, pair.old)
        if point > points - 5 and second.code != 3:
            continue  # Stopped so late that it had released the lock.
        assert second.code == 3, f"write {point}: {second.text}"
        report = second.report
        assert f"pid {first.pid} on {os.uname().nodename}" in report["message"]
        assert "wait until it ends" in report["findings"][0]["next_step"]


@pytest.mark.parametrize(("crowd", "rounds"), [(2, 40), (8, 8)])
def test_started_together(pair: Pair, room: Path, crowd: int, rounds: int) -> None:
    """They start together; each either does its work or names one of the others."""
    refused = 0
    for _ in range(rounds):
        tree = copy(pair.old, room / "tree")
        ready, gun = os.pipe()

        def wait_for_gun(ready: int = ready, gun: int = gun) -> None:
            os.close(gun)
            os.read(ready, 1)

        runners = [
            start(room, "--json", tree, first=wait_for_gun) for _ in range(crowd)
        ]
        os.close(ready)
        os.close(gun)
        refused += _judge(runners, tree, pair)
    assert refused
    print(f"{refused} refused")


def test_started_together_from_the_shell(pair: Pair, room: Path) -> None:
    """The same with separate interpreters."""
    for _ in range(5):
        tree = copy(pair.old, room / "tree")
        command = [sys.executable, str(APPLY), str(tree)]
        runners = [
            subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            )
            for _ in range(2)
        ]
        errors = [runner.communicate()[1] for runner in runners]
        codes = [runner.returncode for runner in runners]
        assert 0 in codes and set(codes) <= {0, 3}, errors
        for code, error in zip(codes, errors, strict=True):
            pids = {str(runner.pid) for runner in runners}
            assert code == 0 or set(re.findall(r"pid (\d+)", error)) <= pids
        assert not check_whole(tree, pair.before, pair.after, pair.old)


def _judge(runners: list[Child], tree: Path, pair: Pair) -> int:
    pids = {runner.pid for runner in runners}
    results = [(runner.pid, runner.wait()) for runner in runners]
    codes = [done.code for _, done in results]
    assert 0 in codes and set(codes) <= {0, 3}, [done.text for _, done in results]
    for pid, done in results:
        if done.code == 3:
            named = re.search(r"held by another process: pid (\d+)", done.out)
            assert named, done.text
            assert int(named[1]) in pids - {pid}
    assert not check_whole(tree, pair.before, pair.after, pair.old)
    return codes.count(3)
