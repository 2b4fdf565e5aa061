"""The file lock of a tree: one process writes at a time, and a crash leaves no lock.

The lock is a file in the transaction's folder, held by flock(2), which ends with its
process. The error for a second process names the first.
"""

from __future__ import annotations

import fcntl
import os
import re
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from overlaykit.core.access import access_of, access_within, set_access
from overlaykit.core.errors import CannotApply, Finding
from overlaykit.core.paths import OWN_FOLDER
from overlaykit.trees.tree import DirectoryTree

FOLDER = OWN_FOLDER
LOCK = "lock"
JOURNAL = "journal.json"
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def signals_blocked() -> Iterator[None]:
    """Block Ctrl-C, SIGTERM and SIGHUP until the end of the block."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    try:
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def acquire(tree: DirectoryTree, folder: Path) -> int:
    """Lock the tree and return the lock's handle; signals must be blocked.

    Raises CannotApply if another process holds the lock, OSError if it cannot be
    created.
    """
    patience = time.monotonic() + 1
    while True:
        if folder.is_symlink():
            raise CannotApply(
                f"{tree.name}: refusing to touch a symbolic link",
                (
                    Finding(
                        "is a symbolic link",
                        path=FOLDER,
                        expected="no such file",
                        found=f"{folder} -> {folder.readlink()}",
                        next_step="remove the link",
                    ),
                ),
            )
        # Not exist_ok: that raises if the folder disappears during the call.
        made = False
        with suppress(FileExistsError):
            folder.mkdir()
            made = True
        try:
            lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
        except FileNotFoundError:
            continue
        except OSError:
            remove_empty(folder)
            raise
        if made:
            _give_to_owner(tree, folder, lock)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(lock, 4096, 0).decode(errors="replace").strip()
            os.close(lock)
            if not _may_be_running(holder) and time.monotonic() < patience:
                # The holder has just started and not written its name, or just ended.
                time.sleep(0.005)
                continue
            if not _may_be_running(holder):
                holder = f"{holder or 'unknown'}, or a git process that it started"
            raise CannotApply(
                f"{tree.name} is held by another process: {holder}",
                (
                    Finding(
                        "is locked",
                        path=f"{FOLDER}/{LOCK}",
                        next_step="wait until it ends, then run this again",
                    ),
                ),
            ) from None
        try:
            current = os.stat(folder / LOCK).st_ino
        except FileNotFoundError:
            current = -1
        if current == os.fstat(lock).st_ino:
            break
        # The previous holder removed the file that we opened: open the new one.
        os.close(lock)
    started = time.strftime("%Y-%m-%d %H:%M:%S")
    who = f"pid {os.getpid()} on {os.uname().nodename}, since {started}: {sys.argv[0]}"
    # Optional: a full disk must not prevent the repair of a tree.
    with suppress(OSError):
        os.ftruncate(lock, 0)
        os.pwrite(lock, who.encode(errors="replace"), 0)
    return lock


def _give_to_owner(tree: DirectoryTree, folder: Path, lock: int) -> None:
    """Give the folder to the tree's owner, who can then finish an interrupted
    transaction of another user, usually root."""
    around = tree.root.stat()
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            set_access(handle, access_of(around))
        finally:
            os.close(handle)
        set_access(lock, access_within(tree.root))


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


def release(folder: Path, lock: int, keep: bool) -> None:
    """Unlock, and remove the folder unless a later process needs it."""
    try:
        if not keep:
            for left in folder.iterdir():
                if left.name != LOCK:
                    left.unlink()
            (folder / LOCK).unlink()
            folder.rmdir()
    except OSError:
        # The transaction itself is complete; the next one removes the rest.
        pass
    finally:
        os.close(lock)


def remove_empty(folder: Path) -> bool:
    """Remove a folder if it is empty; return whether it is gone."""
    try:
        folder.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True
