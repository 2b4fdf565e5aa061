"""Who may write to a tree: one process at a time, and nobody after a crash.

The lock is a file in the transaction's folder, held by flock(2), which ends with its
process. Whoever is refused is told who holds it.
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
    """Hold Ctrl-C, SIGTERM and SIGHUP back until the end of the block."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    try:
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def acquire(tree: DirectoryTree, folder: Path) -> int:
    """Lock the tree and return the lock's handle; signals must be held back.

    Raises CannotApply where another process holds it, OSError where it cannot be made.
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
        # Not exist_ok: that raises for a folder which goes away while it looks.
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
                # It has just begun, and not yet said who it is, or just ended.
                time.sleep(0.005)
                continue
            if not _may_be_running(holder):
                holder = f"{holder or 'unknown'}, or a git process that it left behind"
            raise CannotApply(
                f"{tree.name} is held by another process: {holder}",
                (
                    Finding(
                        "is locked",
                        path=f"{FOLDER}/{LOCK}",
                        next_step="wait until it ends, then try again",
                    ),
                ),
            ) from None
        try:
            current = os.stat(folder / LOCK).st_ino
        except FileNotFoundError:
            current = -1
        if current == os.fstat(lock).st_ino:
            break
        # The holder before us removed the file that we opened: open the next one.
        os.close(lock)
    started = time.strftime("%Y-%m-%d %H:%M:%S")
    who = f"pid {os.getpid()} on {os.uname().nodename}, since {started}: {sys.argv[0]}"
    # Only a courtesy, and no reason not to repair a tree on a full disk.
    with suppress(OSError):
        os.ftruncate(lock, 0)
        os.pwrite(lock, who.encode(errors="replace"), 0)
    return lock


def _give_to_owner(tree: DirectoryTree, folder: Path, lock: int) -> None:
    """Whoever owns the tree can end what another user leaves behind, root mostly."""
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
    said = re.match(r"pid (\d+) on (\S+),", holder)
    if said is None or said[2] != os.uname().nodename:
        return said is not None
    try:
        os.kill(int(said[1]), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def release(folder: Path, lock: int, keep: bool) -> None:
    """Unlock, and take the folder away unless it must stay for a later process."""
    try:
        if not keep:
            for left in folder.iterdir():
                if left.name != LOCK:
                    left.unlink()
            (folder / LOCK).unlink()
            folder.rmdir()
    except OSError:
        # The transaction itself is over; what is left is cleared by the next one.
        pass
    finally:
        os.close(lock)


def remove_empty(folder: Path) -> bool:
    """Remove a folder if it is empty; whether it is gone."""
    try:
        folder.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True
