"""The promise: killed at any write, a tree is all old or all new after the next run."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from faults.conftest import Pair
from faults.harness import (
    APPLY,
    FOLDER,
    KILL,
    VERBS,
    Contents,
    apply,
    contents,
    copy,
    count_writes,
    times,
)

pytestmark = pytest.mark.slow("killed at every write and every system call")

BOTH = pytest.mark.parametrize("unapply", [False, True], ids=["apply", "unapply"])
# With the names on other processors; strace skips unknown ones.
SYSCALLS = (
    "?mkdir,?mkdirat",
    "write,pwrite64",
    "fsync",
    "?rename,?renameat,?renameat2",
    "?unlink,?rmdir,?unlinkat",
)


def verb(unapply: bool) -> tuple[str, ...]:
    return ("--unapply",) if unapply else ()


def check_whole(tree: Path, before: Contents, after: Contents, was: Path) -> bool:
    """Assert that a tree is all old or all new; return whether it is old.

    What neither state changes was not even touched, and what was rolled back looks
    as if nobody had been there, times included.
    """
    assert not (tree / FOLDER).exists()
    found = contents(tree)
    mixed = {
        path
        for path in before.keys() | after.keys()
        if found.get(path) not in (before.get(path), after.get(path))
    }
    assert not mixed
    old = found == before
    assert old or found == after, "some files are old and some are new"
    then, now = times(was), times(tree)
    same = before.items() & after.items()
    assert {p for p, _ in same if then.get(p) != now.get(p)} == set()
    return old


def check_recovers(
    tree: Path, how: tuple[str, ...], pair: Pair, unapply: bool, room: Path
) -> None:
    """Run the next command on an interrupted tree, and check the promise."""
    was, before, after = pair.ends(unapply)
    crashed_new = (tree / FOLDER).exists() is False and contents(tree) == after
    done = apply(room, *how, tree)
    assert done.code in ((0, 1) if how == ("--status",) else (0,)), done.text
    old = check_whole(tree, before, after, was)
    if how == ("--status",):
        if old:
            assert times(tree) == times(was)
        assert not (crashed_new and old)
        # Exit 0 means applied and 1 pristine; it must be true.
        assert done.code == int(old != unapply)
    else:
        assert old == (how == verb(not unapply))


@BOTH
def test_killed_at_every_write(pair: Pair, room: Path, unapply: bool) -> None:
    was, _, _ = pair.ends(unapply)
    points = count_writes(room, was, *verb(unapply))
    assert points > 20
    for point, how in zip(range(1, points + 1), itertools.cycle(VERBS), strict=False):
        tree = copy(was, room / "tree")
        killed = apply(room, *verb(unapply), tree, at=point, mischief=KILL)
        assert killed.code == -9, f"write {point}: {killed.text}"
        check_recovers(tree, how, pair, unapply, room)
    print(f"killed at {points} writes")


@BOTH
@pytest.mark.parametrize("how", VERBS, ids=lambda how: (*how, "apply")[0].strip("-"))
def test_recovery_killed_at_every_write(
    pair: Pair, room: Path, unapply: bool, how: tuple[str, ...]
) -> None:
    """Killed just before the commit, when there is most to roll back."""
    was, before, after = pair.ends(unapply)
    crashed = copy(was, room / "crashed")
    commit = {"at": _renames(room, was, unapply), "event": "os.rename"}
    killed = apply(room, *verb(unapply), crashed, mischief=KILL, **commit)  # type: ignore[arg-type]
    assert killed.code == -9
    left = {p: v for p, v in contents(crashed).items() if not p.startswith(FOLDER)}
    assert left.items() - {p: v for p, v in left.items() if v[1] == b""}.items() <= (
        after.items()
    )
    for point in itertools.count(1):
        tree = copy(crashed, room / "tree")
        killed = apply(room, *how, tree, at=point, mischief=KILL)
        if killed.code != -9:
            break
        check_recovers(tree, VERBS[point % 3], pair, unapply, room)
    assert point > 10
    check_whole(tree, before, after, was)
    print(f"killed at {point - 1} writes")


@BOTH
def test_recovery_killed_again_and_again(pair: Pair, room: Path, unapply: bool) -> None:
    """Each recovery is killed too, one write later each time, until one finishes:
    progress is never lost."""
    was, _, _ = pair.ends(unapply)
    points = count_writes(room, was, *verb(unapply))
    for point in range(3, points + 1, 7):
        tree = copy(was, room / "tree")
        apply(room, *verb(unapply), tree, at=point, mischief=KILL)
        for again in itertools.count(1):
            killed = apply(room, "--status", tree, at=again, mischief=KILL)
            if killed.code != -9:
                break
        check_recovers(tree, VERBS[point % 3], pair, unapply, room)


@BOTH
def test_killed_at_every_system_call(pair: Pair, room: Path, unapply: bool) -> None:
    """Also between two write(2) calls, in a normally started interpreter."""
    _need_strace(room)
    was, _, _ = pair.ends(unapply)
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        crashed = [
            tree
            for trees in pool.map(
                lambda call: _kill_at_calls(call, was, room, unapply), SYSCALLS
            )
            for tree in trees
        ]
    assert len(crashed) > 20
    for tree, how in zip(crashed, itertools.cycle(VERBS), strict=False):
        check_recovers(tree, how, pair, unapply, room)
    print(f"killed at {len(crashed)} system calls")


def _kill_at_calls(call: str, was: Path, room: Path, unapply: bool) -> list[Path]:
    """The trees left by a kill at the first, second, ... call of one kind."""
    trees: list[Path] = []
    for number in itertools.count(1):
        tree = copy(was, room / f"{call.strip('?').partition(',')[0]}-{number}")
        strace = ["strace", "-f", "-o", os.devnull]
        strace += ["-e", f"trace={call}"]
        strace += ["-e", f"inject={call}:signal=SIGKILL:when={number}"]
        done = subprocess.run(
            [*strace, sys.executable, "-B", str(APPLY), *verb(unapply), str(tree)],
            capture_output=True,
            check=False,
        )
        if done.returncode != -9:
            assert done.returncode == 0, done.stderr
            shutil.rmtree(tree)
            return trees
        trees.append(tree)
    raise AssertionError


def _need_strace(room: Path) -> None:
    """Skip unless strace is installed and may trace and kill."""
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    probe = ["strace", "-f", "-o", os.devnull]
    probe += ["-e", "inject=mkdir:signal=SIGKILL", "mkdir", str(room / "probe")]
    done = subprocess.run(probe, capture_output=True, text=True, check=False)
    if done.returncode != -9:
        pytest.skip(f"strace cannot inject signals here: {done.stderr.strip()}")


def _renames(room: Path, was: Path, unapply: bool) -> int:
    """How many renames a run makes; the last one is the commit."""
    tree = copy(was, room / "counted")
    nothing = {"at": 1, "mischief": lambda: None, "event": "os.rename"}
    done = apply(room, *verb(unapply), tree, **nothing)  # type: ignore[arg-type]
    shutil.rmtree(tree)
    return done.writes
