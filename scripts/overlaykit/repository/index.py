"""A clone's index: read, prepared aside, and put in place under git's own lock.

The work tree is never read here, so that no filter of the clone's configuration runs:
entries are set by blob id. An entry set so has no stat data; the next ``git status``
compares the file once and fills it in.

``index.lock`` is made as a hard link to a file of a fixed name beside it. Whoever comes
after a crash knows by the inode whether the lock is ours.
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
    """Mode and object id of those of the paths that a commit holds."""
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
    """Set entries by mode and object id, None to remove one, in the clone's index or
    in a file that stands for it."""
    # For a removal git reads an id and does not look at it; its length must be right.
    some = next((row.split()[1] for row in rows.values() if row), "0" * 40)
    lines = [f"{row or f'0 {some}'}\t{path}\0" for path, row in rows.items()]
    clones.run(
        clone, "update-index", "-z", "--add", "--index-info",
        stdin=b"".join(map(os.fsencode, lines)),
        env={} if index is None else {"GIT_INDEX_FILE": str(index)},
        keep=keep,
    )  # fmt: skip


def index_id(folder: Path) -> str:
    """What the index of a git directory holds, as one id."""
    place = folder / "index"
    return blob_id(place.read_bytes() if place.exists() else b"")


def prepare(
    clone: Path,
    folder: Path,
    new: Path,
    rows: Mapping[str, str | None],
    keep: Sequence[int],
) -> str:
    """Write the index with ``rows`` set to ``new``; returns the id of the one that it
    was made from. ``folder`` is the clone's git directory."""
    was = (folder / "index").read_bytes()
    write_durably(new, was, (folder / "index").stat())
    set_entries(clone, rows, new, keep)
    return blob_id(was)


def take_lock(folder: Path, new: Path, was: str) -> None:
    """Take ``index.lock`` with the prepared index in it.

    Raises EnvironmentFailure where git holds it, CannotApply where the index is not
    the one that the new one was made from.
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
                    "was changed by somebody else just now",
                    path=str(folder / "index"),
                    next_step="see who runs git in this clone, then run it again",
                ),
            ),
        )


def put_in_place(folder: Path) -> None:
    """The prepared index becomes the index, and the lock ends, in one step."""
    os.replace(folder / LOCK, folder / "index")
    (folder / _OURS).unlink()
    sync_folder(folder)


def drop_lock(folder: Path) -> None:
    """End the lock if it is ours, and clear what was prepared."""
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
        "takes no hard link, by which the index is locked",
        path=str(folder),
        found=str(error),
        next_step=step,
    )
    what = f"{folder}: cannot lock the index; nothing was changed"
    return EnvironmentFailure(what, (finding,))


def lock_held(locks: Iterable[Path]) -> EnvironmentFailure:
    """The refusal where another git process holds locks."""
    there = tuple(locks)
    return EnvironmentFailure(
        f"{there[0].parent}: git's lock {there[0].name} is held by another process; "
        "nothing was changed",
        tuple(
            Finding(
                "is locked by another git process",
                path=str(lock),
                expected="no such file",
                next_step="wait until that process ends, then run this again; where "
                f"no git process runs a crash left the lock: rm {lock}",
            )
            for lock in there
        ),
    )
