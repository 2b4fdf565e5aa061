"""The lock of a tree, a file in the transaction's folder: one process writes at a time.
The error for a second process names the first."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from overlaykit.core.access import access_of, access_within, set_access
from overlaykit.core.errors import CannotApply, Finding
from overlaykit.core.locks import Held, opened, take
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
            lock = opened(folder / LOCK)
        except FileNotFoundError:
            continue
        except OSError:
            remove_empty(folder)
            raise
        if made:
            _give_to_owner(tree, folder, lock)
        try:
            take(lock)
        except Held as holder:
            os.close(lock)
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
            return lock
        # The previous holder removed the file that we opened: open the new one.
        os.close(lock)


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
