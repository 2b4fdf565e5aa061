"""Ends a command, and all it started, with whoever started it.

``keeper.py [--after COMMAND]... COMMAND...`` runs the command until it ends, or until
its own standard input does: the gate holds the other end of that pipe, and loses it
however it dies, by ``kill -9`` as well. Processes that have left the command's session
or lost their parent are found too: they become this process's children. A container is
none of them, and outlives an engine's client that had to be killed: what takes it away
is given as ``--after``, in one word, and run in any case.
"""

from __future__ import annotations

import ctypes
import os
import select
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import FrameType

_GRACE_S = 20
_AFTER_S = 30
_SET_PDEATHSIG, _SET_CHILD_SUBREAPER = 1, 36


def main(words: list[str]) -> int:
    """The command's exit code; 128 and the signal's number, if one ended it."""
    after: list[list[str]] = []
    while words[:1] == ["--after"]:
        after.append(shlex.split(words[1]))
        words = words[2:]
    code = _keep(words)
    for command in after:
        with suppress(OSError, subprocess.TimeoutExpired):
            subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True,
                           check=False, timeout=_AFTER_S)  # fmt: skip
    return code


def _keep(command: list[str]) -> int:
    """Until nothing that it started is left."""
    _prctl(_SET_CHILD_SUBREAPER, 1)
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake)

    def note(number: int, frame: FrameType | None) -> None:
        """Signals only wake; what to do is decided below."""
        asked.append(number)

    asked: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, note)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            preexec_fn=_dying_with_its_parent(),
        )
    except OSError as error:
        print(f"cannot run {command[0]}: {error}", file=sys.stderr)
        return 127
    while process.poll() is None and not asked:
        ready, _, _ = select.select([sys.stdin.fileno(), woken], [], [])
        if woken in ready:
            os.read(woken, 4096)
        if sys.stdin.fileno() in ready and not os.read(sys.stdin.fileno(), 4096):
            break
    _end_all(process)
    code = process.wait()
    return 128 - code if code < 0 else code


def _dying_with_its_parent() -> Callable[[], None]:
    """So that this process, killed itself, does not leave the command behind."""
    libc = ctypes.CDLL(None, use_errno=True)
    return lambda: libc.prctl(_SET_PDEATHSIG, signal.SIGTERM)


def _prctl(option: int, value: int) -> None:
    ctypes.CDLL(None, use_errno=True).prctl(option, value)


def _end_all(process: subprocess.Popen[bytes]) -> None:
    """First asked, then made to; until nothing is left."""
    deadline, number = time.monotonic() + _GRACE_S, signal.SIGTERM
    told: set[int] = set()
    while left := set(_descendants()):
        if time.monotonic() > deadline:
            number, told = signal.SIGKILL, set()
        for pid in left - told:
            with suppress(ProcessLookupError):
                os.kill(pid, number)
        told |= left
        process.poll()
        _reap(process.pid)
        time.sleep(0.02)


def _reap(but: int) -> None:
    """Children that were taken over; the command itself is its own object's."""
    for pid in _children().get(os.getpid(), []):
        if pid != but:
            with suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)


def _descendants() -> Iterator[int]:
    children = _children()
    queue = [os.getpid()]
    while queue:
        for pid in children.get(queue.pop(), []):
            queue.append(pid)
            yield pid


def _children() -> dict[int, list[int]]:
    """By parent; zombies are no processes any more."""
    found: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            state, parent, *_ = stat.read_text().rpartition(") ")[2].split()
            pid = int(stat.parent.name)
            if state != "Z" or parent == str(os.getpid()):
                found.setdefault(int(parent), []).append(pid)
    return found


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
