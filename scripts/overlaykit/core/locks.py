"""File locks: one process at a time, and a crash leaves no lock.

A lock is a file held by flock(2), which ends with its process and with the processes
that inherit the handle. The file names the process that holds it.
"""

from __future__ import annotations

import fcntl
import os
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from overlaykit.core.errors import EnvironmentFailure, Finding

_PATIENCE_S = 1


class Held(Exception):
    """Another process holds the lock; the text names it."""


@contextmanager
def folder_locked(lock: Path) -> Iterator[None]:
    """Hold the lock of the folder around it, which is created if it is missing. The
    file stays. Raises EnvironmentFailure if it is held or cannot be created."""
    folder = lock.parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = opened(lock)
    except OSError as error:
        finding = Finding(str(error), path=str(folder))
        raise EnvironmentFailure(f"cannot write to {folder}", (finding,)) from error
    try:
        try:
            take(handle)
        except Held as holder:
            finding = Finding(
                "another process is using it",
                path=str(folder),
                found=str(holder),
                next_step="wait until it ends, or give another folder",
            )
            raise EnvironmentFailure(f"{folder} is in use", (finding,)) from holder
        yield
    finally:
        os.close(handle)


def opened(lock: Path) -> int:
    """The file's handle, to be locked. Raises OSError."""
    return os.open(lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)


def take(handle: int) -> None:
    """Lock an open file for this process, and name the process in it. Raises Held."""
    patience = time.monotonic() + _PATIENCE_S
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            holder = os.pread(handle, 4096, 0).decode(errors="replace").strip()
        if _may_be_running(holder):
            raise Held(holder)
        if time.monotonic() >= patience:
            raise Held(f"{holder or 'unknown'}, or a process that it started")
        # The holder has just started and not written its name, or just ended.
        time.sleep(0.005)
    started = time.strftime("%Y-%m-%d %H:%M:%S")
    who = f"pid {os.getpid()} on {os.uname().nodename}, since {started}: {sys.argv[0]}"
    # Optional: a full disk must not prevent the repair of a tree.
    with suppress(OSError):
        os.ftruncate(handle, 0)
        os.pwrite(handle, who.encode(errors="replace"), 0)


def _may_be_running(holder: str) -> bool:
    """Whether the process that a lock names may be running."""
    match = re.match(r"pid (\d+) on (\S+),", holder)
    if match is None or match[2] != os.uname().nodename:
        return match is not None
    try:
        os.kill(int(match[1]), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
