"""The only writer: all of a plan or none of it, whatever happens in between.

A transaction lives in one folder at the root of the tree, ``.overlay-transaction``,
which is gone when no transaction is under way. New and old contents are on disk
before the journal is; while the journal exists the transaction is unfinished and is
rolled back by whoever comes next; removing the journal is the commit. So a kill at any
moment leaves a tree that :func:`hold` brings to all-old or all-new.

The folder's lock file is held by flock(2), which ends with its process: a lock never
outlives a crash.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import stat
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec

from overlaykit.errors import CannotApply, EnvironmentFailure, Finding
from overlaykit.objects import blob_id
from overlaykit.plan import FileChange
from overlaykit.trees import DirectoryTree

FOLDER = ".overlay-transaction"
_LOCK = "lock"
_JOURNAL = "journal.json"


class _Row(msgspec.Struct, frozen=True):
    """A file of the journal: where, and its blob ids before and after (null: none).

    ``folders`` are those that it needs and that were not there, innermost first.
    """

    place: str
    before: str | None
    after: str | None
    folders: list[str]


def interrupted(tree: DirectoryTree) -> bool:
    """Whether a transaction was left behind, or is under way, on this tree."""
    return (tree.root / FOLDER).exists()


def refuse_interrupted(tree: DirectoryTree) -> None:
    """For who only reads: raise CannotApply where a transaction was left behind."""
    if interrupted(tree):
        raise CannotApply(
            f"{tree.name}: a transaction is unfinished",
            (
                Finding(
                    "was interrupted, or is under way",
                    path=FOLDER,
                    next_step=f"run scripts/apply.py --status {tree.root}, which "
                    "repairs the tree",
                ),
            ),
        )


class Transaction:
    """A tree held for writing. Use :func:`hold`; stage, swap, then finish."""

    def __init__(self, tree: DirectoryTree, folder: Path) -> None:
        self._tree = tree
        self._folder = folder
        self.repaired = self._recover()

    def stage(self, changes: Sequence[FileChange]) -> None:
        """Write new and old contents and the journal; the tree is as it was."""
        rows = []
        for number, change in enumerate(changes):
            place = self._tree.locate(change.path)
            if change.before is not None:
                was = place.stat()
                self._write(f"old-{number}", change.before, was)
                self._write(f"new-{number}", change.after, was)
            else:
                self._write(f"new-{number}", change.after, None, change.mode)
            rows.append(
                _Row(
                    str(place.relative_to(self._tree.root)),
                    _id(change.before),
                    _id(change.after),
                    self._missing_folders(place),
                )
            )
        self._write("journal.part", msgspec.json.encode(rows), None)
        _sync(self._folder)
        os.replace(self._folder / "journal.part", self._folder / _JOURNAL)
        _sync(self._folder)

    def swap(self) -> None:
        """Put the new contents in place and check that they are there."""
        rows = self._rows()
        for number, row in enumerate(rows):
            place = self._tree.root / row.place
            if row.after is None:
                place.unlink()
            else:
                place.parent.mkdir(parents=True, exist_ok=True)
                os.replace(self._folder / f"new-{number}", place)
        for folder in {(self._tree.root / row.place).parent for row in rows}:
            _sync(folder)
        for row in rows:
            if (found := _id_of(self._tree.root / row.place)) != row.after:
                raise CannotApply(
                    f"{row.place} changed while it was written: found blob {found}, "
                    f"expected {row.after}"
                )

    def finish(self) -> None:
        """Commit: from here on the tree counts as changed."""
        rows = self._rows()
        (self._folder / _JOURNAL).unlink()
        _sync(self._folder)
        for row in rows:
            if row.after is None:
                self._prune(Path(row.place).parent)

    def _recover(self) -> bool:
        """Roll back what an earlier process left unfinished."""
        unfinished = (self._folder / _JOURNAL).exists()
        if unfinished:
            self.roll_back()
        self._clear()
        return unfinished

    def roll_back(self) -> None:
        """Bring every file back to what it was. May itself be killed and rerun.

        Raises CannotApply where a file is neither old nor new: somebody else wrote it.
        """
        rows = self._rows()
        for row in rows:
            if _id_of(self._tree.root / row.place) not in (
                row.before,
                row.after,
            ):
                raise CannotApply(
                    f"{self._tree.name}: cannot roll back an interrupted transaction",
                    (
                        Finding(
                            "was changed by somebody else since",
                            path=row.place,
                            expected=f"blob {row.before} or {row.after}",
                            next_step=f"restore it from {self._folder}/old-* or from "
                            f"upstream, then remove {self._folder}",
                        ),
                    ),
                )
        for number, row in reversed(list(enumerate(rows))):
            place = self._tree.root / row.place
            if _id_of(place) == row.before:
                pass
            elif row.before is None:
                place.unlink()
            else:
                again = self._folder / "again"
                shutil.copy2(self._folder / f"old-{number}", again)
                _chown_like(again, (self._folder / f"old-{number}").stat())
                os.replace(again, place)
            for folder in row.folders:
                if (self._tree.root / folder).is_dir():
                    _remove_empty(self._tree.root / folder)
        (self._folder / _JOURNAL).unlink()
        _sync(self._folder)

    @property
    def unfinished(self) -> bool:
        """Whether the journal stands."""
        return (self._folder / _JOURNAL).exists()

    def _rows(self) -> list[_Row]:
        journal = (self._folder / _JOURNAL).read_bytes()
        return msgspec.json.decode(journal, type=list[_Row])

    def _missing_folders(self, place: Path) -> list[str]:
        """Folders that a new file needs, innermost first."""
        folders = []
        folder = place.parent
        while not folder.exists():
            folders.append(str(folder.relative_to(self._tree.root)))
            folder = folder.parent
        return folders

    def _write(
        self,
        name: str,
        data: bytes | None,
        like: os.stat_result | None,
        mode: str = "100644",
    ) -> None:
        if data is None:
            return
        place = self._folder / name
        with place.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if like is not None:
            place.chmod(stat.S_IMODE(like.st_mode))
            _chown_like(place, like)
            if name.startswith("old-"):
                os.utime(place, ns=(like.st_atime_ns, like.st_mtime_ns))
        elif mode == "100755":
            place.chmod(stat.S_IMODE(place.stat().st_mode) | 0o111)

    def _prune(self, folder: Path) -> None:
        """Remove folders that held nothing but a new file."""
        while folder.parts and _remove_empty(self._tree.root / folder):
            folder = folder.parent

    def _clear(self) -> None:
        for left in self._folder.iterdir():
            if left.name != _LOCK:
                left.unlink()


@contextmanager
def hold(tree: DirectoryTree) -> Iterator[Transaction]:
    """Hold a tree for writing, after bringing an interrupted transaction to its end.

    On any exception what was swapped is rolled back. Raises CannotApply where another
    process holds the tree, EnvironmentFailure where the tree cannot be written.
    """
    folder = tree.root / FOLDER
    try:
        lock = _acquire(tree, folder)
    except OSError as error:
        raise _environment(tree, error) from error
    try:
        transaction = Transaction(tree, folder)
        try:
            yield transaction
        except BaseException:
            if transaction.unfinished:
                transaction.roll_back()
            raise
    except OSError as error:
        raise _environment(tree, error) from error
    finally:
        _release(folder, lock)


def _acquire(tree: DirectoryTree, folder: Path) -> int:
    while True:
        folder.mkdir(exist_ok=True)
        try:
            lock = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT, 0o644)
        except FileNotFoundError:
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(lock, 4096, 0).decode(errors="replace").strip()
            os.close(lock)
            raise CannotApply(
                f"{tree.name} is held by another process: "
                f"{holder or 'just starting, it has not said which'}",
                (
                    Finding(
                        "is locked",
                        path=f"{FOLDER}/{_LOCK}",
                        next_step="wait until it ends, then try again",
                    ),
                ),
            ) from None
        try:
            current = os.stat(folder / _LOCK).st_ino
        except FileNotFoundError:
            current = -1
        if current == os.fstat(lock).st_ino:
            break
        # The holder before us removed the file that we opened: open the next one.
        os.close(lock)
    os.ftruncate(lock, 0)
    started = time.strftime("%Y-%m-%d %H:%M:%S")
    who = f"pid {os.getpid()} on {os.uname().nodename}, since {started}: {sys.argv[0]}"
    os.pwrite(lock, who.encode(), 0)
    return lock


def _release(folder: Path, lock: int) -> None:
    """Take the folder away, unless an unfinished transaction must stay for later."""
    try:
        if not (folder / _JOURNAL).exists():
            for left in folder.iterdir():
                if left.name != _LOCK:
                    left.unlink()
            (folder / _LOCK).unlink()
            folder.rmdir()
    except OSError:
        # The transaction itself is over; what is left is cleared by the next one.
        pass
    finally:
        os.close(lock)


def _environment(tree: DirectoryTree, error: OSError) -> EnvironmentFailure:
    what = {
        errno.ENOSPC: "the disk is full",
        errno.EDQUOT: "the disk quota is used up",
        errno.EFBIG: "a file would exceed the size limit",
        errno.EROFS: "the file system is read-only",
        errno.EACCES: "no permission to write",
        errno.EPERM: "no permission to write",
    }.get(error.errno or 0, "cannot write")
    unfinished = (tree.root / FOLDER / _JOURNAL).exists()
    state = "the next run rolls it back" if unfinished else "nothing was changed"
    return EnvironmentFailure(
        f"{tree.name}: {what}; {state}",
        (
            Finding(
                what,
                path=str(error.filename or tree.root),
                found=str(error),
                next_step="make room or permit writing, then run it again",
            ),
        ),
    )


def _id(data: bytes | None) -> str | None:
    return None if data is None else blob_id(data)


def _id_of(place: Path) -> str | None:
    try:
        return blob_id(place.read_bytes())
    except FileNotFoundError:
        return None


def _chown_like(place: Path, like: os.stat_result) -> None:
    now = place.stat()
    if (now.st_uid, now.st_gid) != (like.st_uid, like.st_gid):
        os.chown(place, like.st_uid, like.st_gid)


def _remove_empty(folder: Path) -> bool:
    try:
        folder.rmdir()
    except OSError:
        return False
    return True


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
