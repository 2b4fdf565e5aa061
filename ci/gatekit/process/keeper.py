"""Runs a command and ends it, with all its children, when the gate ends.

``keeper.py [--after COMMAND]... COMMAND...`` runs the command until the command ends or
the keeper's own standard input closes. The gate holds the other end of that pipe, so
the pipe closes however the gate dies, even by ``kill -9``. Processes that left the
command's session or lost their parent become children of the keeper, so it ends them
too. A container is not a child: it survives when the engine's client is killed.
``--after`` takes the command that removes it, as one word; the keeper always runs it.
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
    """Returns the command's exit code, or 128 plus the number of the signal that
    ended it."""
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
    """Run the command until it and all its children have ended."""
    _prctl(_SET_CHILD_SUBREAPER, 1)
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake)

    def note(number: int, frame: FrameType | None) -> None:
        """A signal only wakes the loop below, which then ends the command."""
        received.append(number)

    received: list[int] = []
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
    while process.poll() is None and not received:
        ready, _, _ = select.select([sys.stdin.fileno(), woken], [], [])
        if woken in ready:
            os.read(woken, 4096)
        if sys.stdin.fileno() in ready and not os.read(sys.stdin.fileno(), 4096):
            break
    _end_all(process)
    code = process.wait()
    return 128 - code if code < 0 else code


def _dying_with_its_parent() -> Callable[[], None]:
    """The kernel ends the command if the keeper itself is killed."""
    libc = ctypes.CDLL(None, use_errno=True)
    return lambda: libc.prctl(_SET_PDEATHSIG, signal.SIGTERM)


def _prctl(option: int, value: int) -> None:
    ctypes.CDLL(None, use_errno=True).prctl(option, value)


def _end_all(process: subprocess.Popen[bytes]) -> None:
    """Send SIGTERM, and SIGKILL after the grace period, until no process is left."""
    deadline, number = time.monotonic() + _GRACE_S, signal.SIGTERM
    signalled: set[int] = set()
    while left := set(_descendants()):
        if time.monotonic() > deadline:
            number, signalled = signal.SIGKILL, set()
        for pid in left - signalled:
            with suppress(ProcessLookupError):
                os.kill(pid, number)
        signalled |= left
        process.poll()
        _reap(process.pid)
        time.sleep(0.02)


def _reap(command: int) -> None:
    """Reap adopted children; the Popen object reaps the command itself."""
    for pid in _children().get(os.getpid(), []):
        if pid != command:
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
    """Process ids by parent. Zombies count only if they are the keeper's own."""
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
