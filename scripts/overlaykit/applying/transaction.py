"""The only writer: it makes all of a plan's changes or none, also through crashes.

A transaction has one folder at the root of the tree, ``.overlay-transaction``, which
exists only while a transaction is under way. New and old contents are on disk before
the journal is. While the journal exists, the transaction is unfinished and the next
process rolls it back; renaming the journal is the commit. So after a kill at any
moment :func:`hold` makes the tree all old or all new. Rolling back only renames and
removes: it works on the full disk that made it necessary. Only the git part of
``--commit`` (:mod:`overlaykit.applying.branches`) needs git to undo it.
"""

from __future__ import annotations

import errno
import os
import signal
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

import msgspec

from overlaykit.applying.branches import Switch, Switcher
from overlaykit.core.access import access_beside, access_within, make_folders
from overlaykit.core.documents import from_json
from overlaykit.core.effects import record_effect
from overlaykit.core.errors import CannotApply, EnvironmentFailure, Finding, InputError
from overlaykit.core.files import sync_folder, write_durably, write_new_durably
from overlaykit.core.objects import blob_id
from overlaykit.core.paths import check_path
from overlaykit.core.wording import quoted
from overlaykit.planning.plan import FileChange
from overlaykit.trees.locking import (
    FOLDER,
    JOURNAL,
    LOCK,
    SIGNALS,
    acquire,
    release,
    remove_empty,
    signals_blocked,
)
from overlaykit.trees.tree import DirectoryTree

_DONE = "done.json"


class _Row(msgspec.Struct, frozen=True):
    """A file in the journal: its path, and blob ids before and after (null: no file).

    ``folders`` are the missing folders that it needs, innermost first.
    """

    place: str
    before: str | None
    after: str | None
    folders: list[str]


def interrupted(tree: DirectoryTree) -> bool:
    """Whether a transaction was left behind, or is under way, on this tree."""
    return (tree.root / FOLDER).exists()


def refuse_interrupted(tree: DirectoryTree) -> None:
    """Raise CannotApply if a transaction was left behind; for verbs that only read."""
    if interrupted(tree):
        raise CannotApply(
            f"{tree.name}: a transaction is unfinished",
            (
                Finding(
                    "was interrupted, or is under way",
                    path=FOLDER,
                    next_step="run scripts/apply.py --status "
                    f"{quoted(str(tree.root))}, which repairs the tree",
                ),
            ),
        )


class _Journal(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A transaction on disk. Without a switch, only the rows are written."""

    files: list[_Row]
    switch: Switch | None = None


class Transaction:
    """A tree held for writing. Use :func:`hold`; stage, swap, then finish."""

    def __init__(self, tree: DirectoryTree, folder: Path, lock: int, done: str) -> None:
        """``lock`` is the handle of the tree's lock; ``done`` is the effect that is
        recorded once the transaction is final."""
        self._tree = tree
        self._lock = lock
        self._done = done
        # Journals have the paths on disk, not those of the tree's layout.
        self._disk = DirectoryTree(tree.root)
        self._folder = folder
        # How many rows of the journal may have been swapped; None: unknown.
        self._reached: int | None = None
        self._switcher: Switcher | None = None
        self.committed = False
        self.repaired = self._recover()

    def stage(
        self, changes: Sequence[FileChange], switch: Switch | None = None
    ) -> None:
        """Write new and old contents and the journal; the tree does not change yet.
        With ``switch``, the clone's branch, HEAD and index change with the files.

        Raises CannotApply if a file has changed since it was planned.
        """
        rows = []
        for number, change in enumerate(changes):
            place = self._tree.locate(change.path)
            row = _Row(
                place.relative_to(self._tree.root).as_posix(),
                _id(change.before),
                _id(change.after),
                self._missing_folders(place),
            )
            self._check_unchanged(row)
            old, new = (self._folder / f"{name}-{number}" for name in ("old", "new"))
            if change.before is not None:
                was = place.stat()
                write_durably(old, change.before, was, times=True)
                if change.after is not None:
                    write_durably(new, change.after, was)
            elif change.after is not None:
                access = access_beside(place, executable=change.mode == "100755")
                write_new_durably(new, change.after, access, place)
            rows.append(row)
        self._switcher = None
        if switch is not None:
            self._switcher = self._new_switcher(switch)
            self._switcher.stage()
        # Without a switch, an older version of this program can read the journal.
        journal = rows if switch is None else _Journal(rows, switch)
        part = self._folder / "journal.part"
        # The tree's owner can finish what another user left behind.
        access = access_within(self._tree.root)
        write_new_durably(part, msgspec.json.encode(journal), access)
        sync_folder(self._folder)
        sync_folder(self._tree.root)
        self._reached = 0
        os.replace(part, self._folder / JOURNAL)
        sync_folder(self._folder)

    def swap(self) -> None:
        """Put the new contents in place and check them."""
        rows = self._read(JOURNAL).files
        if self._switcher is not None:
            self._switcher.lock()
        for number, row in enumerate(rows):
            place = self._disk.locate(row.place)
            self._check_unchanged(row)
            self._reached = number + 1
            if row.after is None:
                place.unlink()
            else:
                make_folders(place.parent)
                os.replace(self._folder / f"new-{number}", place)
        self._sync_folders(rows)
        for row in rows:
            if (found := _id_of(self._tree.root / row.place)) != row.after:
                raise self._interference(row, f"blob {row.after}", found)
        if self._switcher is not None:
            self._switcher.carry_out()

    def finish(self) -> None:
        """Commit: from now on the tree is changed."""
        with signals_blocked():
            os.replace(self._folder / JOURNAL, self._folder / _DONE)
            self.committed = True
            record_effect(self._tree.name, self._done)
            sync_folder(self._folder)
            self._prune()

    def roll_back(self) -> None:
        """Restore every file. May itself be killed and rerun.

        Raises CannotApply if a file is neither old nor new: another process wrote it.
        """
        journal = self._read(JOURNAL)
        rows = list(enumerate(journal.files))[: self._reached]
        for number, row in rows:
            if _id_of(self._disk.locate(row.place)) not in (row.before, row.after):
                raise self._cannot_roll_back(number, row)
        if journal.switch is not None:
            (self._switcher or self._new_switcher(journal.switch)).roll_back()
        for number, row in reversed(rows):
            place = self._tree.root / row.place
            if _id_of(place) == row.before:
                pass
            elif row.before is None:
                place.unlink()
            else:
                make_folders(place.parent)
                os.replace(self._folder / f"old-{number}", place)
            for folder in row.folders:
                remove_empty(self._tree.root / folder)
        self._sync_folders(row for _, row in rows)
        (self._folder / JOURNAL).unlink()
        sync_folder(self._folder)

    @property
    def unfinished(self) -> bool:
        """Whether the journal exists."""
        return (self._folder / JOURNAL).exists()

    def _recover(self) -> bool:
        """Finish what an earlier process left; return whether it was rolled back."""
        unfinished = self.unfinished
        if unfinished:
            self.roll_back()
            record_effect(self._tree.name, "an interrupted run was rolled back")
        elif (self._folder / _DONE).exists():
            self._prune()
        for left in self._folder.iterdir():
            if left.name != LOCK:
                left.unlink()
        return unfinished

    def _new_switcher(self, switch: Switch) -> Switcher:
        return Switcher(self._tree.root, self._folder, switch, (self._lock,))

    def _read(self, name: str) -> _Journal:
        try:
            data = (self._folder / name).read_bytes()
            journal: list[_Row] | _Journal = from_json(data, list[_Row] | _Journal)
            if isinstance(journal, list):
                journal = _Journal(journal)
            for row in journal.files:
                for path in (row.place, *row.folders):
                    check_path(path)
            if journal.switch is not None:
                journal.switch.check()
        except (msgspec.DecodeError, UnicodeDecodeError, InputError) as error:
            raise CannotApply(
                f"{self._tree.name}: the journal of an interrupted transaction, "
                f"{FOLDER}/{name}, is corrupt: {error}",
                (
                    Finding(
                        "is not a valid journal",
                        path=f"{FOLDER}/{name}",
                        found=str(error),
                        next_step="restore the touched files from upstream, then "
                        f"remove {self._folder}",
                    ),
                ),
            ) from error
        return journal

    def _check_unchanged(self, row: _Row) -> None:
        """Do not overwrite what an editor, which takes no lock, has just saved."""
        found = _id_of(self._tree.root / row.place)
        if found != row.before:
            raise self._interference(row, _blob(row.before), found)

    def _interference(self, row: _Row, expected: str, found: str | None) -> CannotApply:
        return CannotApply(
            f"{self._tree.name}: a file was changed while the transaction was under "
            "way",
            (
                Finding(
                    "was just changed by another process",
                    path=row.place,
                    expected=expected,
                    found=_blob(found),
                    next_step="find out what writes to this tree, then run this again",
                ),
            ),
        )

    def _cannot_roll_back(self, number: int, row: _Row) -> CannotApply:
        if row.before is None:
            restore = "move it away"
        elif (old := self._folder / f"old-{number}").exists():
            restore = f"put its old contents back (cp {quoted(str(old))})"
        else:
            restore = "put its old contents back from upstream"
        return CannotApply(
            f"{self._tree.name}: cannot roll back an interrupted transaction",
            (
                Finding(
                    "was changed by another process since then",
                    path=row.place,
                    expected=f"{_blob(row.before)} or {_blob(row.after)}",
                    found=_blob(_id_of(self._tree.root / row.place)),
                    next_step=f"{restore}, then run this again: it rolls back the rest",
                ),
            ),
        )

    def _missing_folders(self, place: Path) -> list[str]:
        """The missing folders that a new file needs, innermost first."""
        folders = []
        folder = place.parent
        while not folder.exists():
            folders.append(folder.relative_to(self._tree.root).as_posix())
            folder = folder.parent
        return folders

    def _sync_folders(self, rows: Iterable[_Row]) -> None:
        """Sync the folders in which files were renamed, created or removed."""
        touched = [path for row in rows for path in (row.place, *row.folders)]
        for parent in {PurePosixPath(path).parent for path in touched}:
            if (self._tree.root / parent).is_dir():
                sync_folder(self._tree.root / parent)

    def _prune(self) -> None:
        """Remove folders that are empty because their files were removed."""
        for row in self._read(_DONE).files:
            folder = PurePosixPath(row.place).parent
            while (
                row.after is None
                and folder.parts
                and remove_empty(self._tree.root / folder)
            ):
                folder = folder.parent


@contextmanager
def hold(
    tree: DirectoryTree, done: str = "the change is in place"
) -> Iterator[Transaction]:
    """Hold a tree for writing, after finishing an interrupted transaction. ``done`` is
    reported for the tree if the caller is interrupted after the commit.

    Any exception rolls back the swapped files. Signals interrupt only the caller's
    block, never locking, unlocking or a roll-back. Raises CannotApply if another
    process holds the tree, EnvironmentFailure if it cannot be written.
    """
    folder = tree.root / FOLDER
    transaction: Transaction | None = None
    try:
        before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        try:
            signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
            lock = acquire(tree, folder)
            try:
                transaction = Transaction(tree, folder, lock, done)
                try:
                    signal.pthread_sigmask(signal.SIG_SETMASK, before)
                    yield transaction
                    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
                except BaseException:
                    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
                    if transaction.unfinished:
                        transaction.roll_back()
                    raise
            finally:
                release(folder, lock, keep=(folder / JOURNAL).exists())
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
    except OSError as error:
        committed = transaction is not None and transaction.committed
        raise _environment(tree, error, committed) from error


_PERMIT = "permit writing"
_UNMOUNT = (
    "unmount it (findmnt -T shows what is mounted there), or name the tree where "
    "nothing is mounted into it"
)
_TROUBLE = {
    errno.ENOSPC: ("the disk is full", "make room"),
    errno.EDQUOT: ("the disk quota is used up", "make room"),
    errno.EFBIG: ("a file would exceed the size limit", "raise it (ulimit -f)"),
    errno.EROFS: ("the file system is read-only", _PERMIT),
    errno.EACCES: ("no permission to write", _PERMIT),
    errno.EPERM: ("no permission to write", _PERMIT),
    # The new file is renamed over the old one, which fails on a mount point.
    errno.EBUSY: ("something is mounted on a file of the tree", _UNMOUNT),
    errno.EXDEV: ("a folder of the tree is mounted from elsewhere", _UNMOUNT),
}


def _environment(
    tree: DirectoryTree, error: OSError, committed: bool
) -> EnvironmentFailure:
    what, step = _TROUBLE.get(error.errno or 0, ("cannot write", "fix the cause above"))
    # If a rename fails, its target is the problem.
    place = error.filename2 or error.filename or tree.root
    if committed:
        state = "the change is in place"
    elif (tree.root / FOLDER / JOURNAL).exists():
        state = "the next run rolls it back"
    else:
        state = "nothing was changed"
    return EnvironmentFailure(
        f"{tree.name}: {what}; {state}",
        (
            Finding(
                what,
                path=str(place),
                found=str(error),
                next_step=f"{step}, then run this again",
            ),
        ),
    )


def _id(data: bytes | None) -> str | None:
    return None if data is None else blob_id(data)


def _blob(oid: str | None) -> str:
    return "no file" if oid is None else f"blob {oid}"


def _id_of(place: Path) -> str | None:
    """The blob id of a file; None if there is no file."""
    try:
        if not stat.S_ISREG(place.lstat().st_mode):
            return "of no regular file"
        return blob_id(place.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
