"""Ctrl-C and SIGTERM: rolled back at once, exit 130, nothing left behind."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from faults.conftest import Pair
from faults.harness import FOLDER, Child, apply, contents, copy, count_writes, send
from faults.test_kill import BOTH, check_whole, verb
from overlaykit.applying import transaction
from overlaykit.applying.transaction import hold
from overlaykit.planning.plan import FileChange
from overlaykit.trees.tree import DirectoryTree

pytestmark = pytest.mark.slow("interrupted at every write")


@BOTH
@pytest.mark.parametrize(
    "number", [signal.SIGTERM, signal.SIGINT], ids=lambda n: n.name
)
def test_interrupted_at_every_write(
    pair: Pair, room: Path, unapply: bool, number: signal.Signals
) -> None:
    was, before, after = pair.ends(unapply)
    points = count_writes(room, was, *verb(unapply))
    seen = []
    # Each signal is tried at every other write; together they cover all.
    for point in range(1 + (number == signal.SIGINT), points + 1, 2):
        tree = copy(was, room / "tree")
        done = apply(room, *verb(unapply), tree, at=point, mischief=send(number))
        assert done.code == 130, f"write {point}: {done.text}"
        assert "interrupted" in done.err and "Traceback" not in done.err
        seen.append(check_whole(tree, before, after, was))
        says = "the series is removed" if unapply else "the series is applied"
        stands = "nothing was changed" if seen[-1] else f"{tree}: {says}"
        assert f"interrupted; {stands}\n" in done.err, f"write {point}"
    # Old up to the commit, new after it.
    assert seen == sorted(seen, reverse=True)
    assert seen.count(True) > 5


def test_impatient_user(pair: Pair, room: Path) -> None:
    """Repeated Ctrl-C does not stop the roll-back that the first one began."""
    was, before, after = pair.ends(False)

    def keep_interrupting() -> None:
        def again(name: str, _: tuple[Any, ...]) -> None:
            if name in ("os.rename", "os.remove", "os.rmdir"):
                os.kill(os.getpid(), signal.SIGINT)

        sys.addaudithook(again)
        os.kill(os.getpid(), signal.SIGINT)

    for point in (1, 3, 5):
        tree = copy(was, room / "tree")
        done = apply(
            room, tree, at=point, event="os.rename", mischief=keep_interrupting
        )
        assert done.code == 130, done.text
        assert check_whole(tree, before, after, was)


def test_interrupted_at_every_instruction(room: Path) -> None:
    """Between any two bytecodes of the writer, also between taking the lock and the
    ``try`` that releases it."""
    tree = room / "tree"
    (tree / "a").mkdir(parents=True)
    changes = (
        FileChange("a/old", "100644", b"1", b"2"),
        FileChange("a/b/new", "100755", None, b"3"),
        FileChange("a/gone", "100644", b"4", None),
    )

    def reset() -> None:
        for change in changes:
            place = tree / change.path
            if change.before is not None:
                place.write_bytes(change.before)
            else:
                place.unlink(missing_ok=True)
        if (tree / "a" / "b").is_dir():
            (tree / "a" / "b").rmdir()

    def work(child: Child) -> None:
        reset()
        before = contents(tree)
        assert _interrupted_at(tree, changes, sys.maxsize)[0] is False
        after = contents(tree)
        point = 0
        while True:
            reset()
            interrupted, instructions = _interrupted_at(tree, changes, point)
            assert not (tree / FOLDER).exists(), point
            assert contents(tree) in (before, after), point
            assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == set(), point
            child.count(instructions)
            if not interrupted:
                break
            # In small steps where the lock is taken and released.
            point += 1 if point < 400 else 3

    done = Child(work, room).wait()
    assert done.code == 0, done.text
    assert done.writes > 500
    print(f"interrupted within {done.writes} instructions")


def _interrupted_at(
    tree: Path, changes: tuple[FileChange, ...], point: int
) -> tuple[bool, int]:
    """Carry out the changes, with a SIGINT before one instruction of the writer.

    Returns whether it interrupted, and how many instructions there were.
    """
    seen = 0

    def step(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal seen
        if frame.f_code.co_filename != transaction.__file__:
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            if seen == point:
                signal.raise_signal(signal.SIGINT)
            seen += 1
        return step

    interrupted = False
    try:
        sys.settrace(step)
        with hold(DirectoryTree(tree)) as writer:
            writer.stage(changes)
            writer.swap()
            writer.finish()
    except KeyboardInterrupt:
        interrupted = True
    finally:
        sys.settrace(None)
    return interrupted, seen
