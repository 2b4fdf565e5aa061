"""A clone's index: read, prepared in another file, and replaced under git's own lock.

Entries are set by blob id and the work tree is never read, so that no filter from the
clone's configuration runs. Such an entry has no stat data; the next ``git status``
compares the file once and adds it.

``index.lock`` is created as a hard link to a file with a fixed name beside it. After a
crash, the inode shows whether the lock is ours.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from overlaykit.core.errors import CannotApply, EnvironmentFailure, Finding
from overlaykit.core.files import sync_folder, write_durably
from overlaykit.core.objects import blob_id
from overlaykit.repository import clones

LOCK = "index.lock"
_OURS = "overlay-index"


@dataclass(frozen=True)
class IndexEntry:
    """An entry: ``tag`` is git's letter (lower case: assumed unchanged; S: skipped in
    the work tree), ``blob`` the mode and object id as ``ls-files`` prints them."""

    path: str
    tag: str
    blob: str
    stage: int


def read_entries(clone: Path) -> list[IndexEntry]:
    """All entries of the clone's index."""
    listed = clones.run(clone, "ls-files", "--stage", "-v", "-z", "--full-name").stdout
    entries = []
    for line in listed.split(b"\0"):
        if line:
            about, _, path = line.partition(b"\t")
            tag, mode, oid, stage = about.decode().split()
            entries.append(
                IndexEntry(os.fsdecode(path), tag, f"{mode} {oid}", int(stage))
            )
    return entries


def tree_entries(clone: Path, treeish: str, paths: Iterable[str]) -> dict[str, str]:
    """Mode and object id of the paths that exist in a commit."""
    wanted = sorted(paths)
    listed = clones.run(
        clone, "ls-tree", "-r", "-z", "--full-tree", treeish, "--", *wanted
    ).stdout
    found = {}
    for line in listed.split(b"\0"):
        about, _, name = line.partition(b"\t")
        if line and (path := os.fsdecode(name)) in wanted:
            mode, _, oid = about.decode().split()
            found[path] = f"{mode} {oid}"
    return found


def set_entries(
    clone: Path,
    rows: Mapping[str, str | None],
    index: Path | None = None,
    keep: Sequence[int] = (),
) -> None:
    """Set entries by mode and object id (None removes one), in the clone's index or in
    the file ``index``."""
    # To remove an entry git needs an id of the right length, and ignores its value.
    some = next((row.split()[1] for row in rows.values() if row), "0" * 40)
    lines = [f"{row or f'0 {some}'}\t{path}\0" for path, row in rows.items()]
    clones.run(
        clone, "update-index", "-z", "--add", "--index-info",
        stdin=b"".join(map(os.fsencode, lines)),
        env={} if index is None else {"GIT_INDEX_FILE": str(index)},
        keep=keep,
    )  # fmt: skip


def index_id(folder: Path) -> str:
    """An id of the contents of a git directory's index."""
    place = folder / "index"
    return blob_id(place.read_bytes() if place.exists() else b"")


def prepare_index(
    clone: Path,
    folder: Path,
    new: Path,
    rows: Mapping[str, str | None],
    keep: Sequence[int],
) -> str:
    """Write a copy of the index, with ``rows`` set, to ``new``; return the id of the
    current index. ``folder`` is the clone's git directory."""
    was = (folder / "index").read_bytes()
    write_durably(new, was, (folder / "index").stat())
    set_entries(clone, rows, new, keep)
    return blob_id(was)


def take_lock(folder: Path, new: Path, was: str) -> None:
    """Create ``index.lock`` with the prepared index as its contents.

    Raises EnvironmentFailure if another git process holds the lock, CannotApply if the
    index has changed since it was copied.
    """
    like = (folder / "index").stat()
    (folder / _OURS).unlink(missing_ok=True)
    write_durably(folder / _OURS, new.read_bytes(), like)
    try:
        os.link(folder / _OURS, folder / LOCK)
    except FileExistsError:
        raise lock_held((folder / LOCK,)) from None
    except OSError as error:
        if error.errno in (errno.EACCES, errno.ENOSPC, errno.EDQUOT, errno.EROFS):
            raise
        raise _no_links(folder, error) from error
    if index_id(folder) != was:
        raise CannotApply(
            f"{folder}: the index was changed while the transaction was under way",
            (
                Finding(
                    "was just changed by another process",
                    path=str(folder / "index"),
                    next_step="find out what runs git in this clone, then run this "
                    "again",
                ),
            ),
        )


def replace_index(folder: Path) -> None:
    """Replace the index by the prepared one and release the lock, in one step."""
    os.replace(folder / LOCK, folder / "index")
    (folder / _OURS).unlink()
    sync_folder(folder)


def release_lock(folder: Path) -> None:
    """Release the lock if it is ours, and remove the prepared index."""
    ours, lock = folder / _OURS, folder / LOCK
    if not ours.exists():
        return
    if lock.exists() and lock.samefile(ours):
        lock.unlink()
    ours.unlink()
    sync_folder(folder)


def _no_links(folder: Path, error: OSError) -> EnvironmentFailure:
    step = "leave --commit out and commit the files yourself, or use a clone on a file "
    step += "system with hard links"
    finding = Finding(
        "does not support hard links, which locking the index needs",
        path=str(folder),
        found=str(error),
        next_step=step,
    )
    what = f"{folder}: cannot lock the index; nothing was changed"
    return EnvironmentFailure(what, (finding,))


def lock_held(locks: Iterable[Path]) -> EnvironmentFailure:
    """The error for locks that another git process holds."""
    there = tuple(locks)
    return EnvironmentFailure(
        f"{there[0].parent}: git's lock {there[0].name} is held by another process; "
        "nothing was changed",
        tuple(
            Finding(
                "is locked by another git process",
                path=str(lock),
                expected="no such file",
                next_step="wait until that process ends, then run this again; if no "
                f"git process is running, a crash left the lock: rm {lock}",
            )
            for lock in there
        ),
    )
