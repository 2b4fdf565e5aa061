"""Who may read what is new in a tree: whoever may read what lies beside it.

A module that root, or anybody with a umask of 077, lays into an installed package must
be importable by the user that serves from it. So mode, owner and group of a new file
are those of most files beside it, and of a new folder those of the folder around it.
Neither the umask nor the user who runs this has a say, unless the owner cannot be
given: only root can do that.
"""

from __future__ import annotations

import errno
import os
import stat
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

_READ, _READ_AND_WRITE = 0o444, 0o666


@dataclass(frozen=True)
class Access:
    """Owner, group and mode of a file or folder."""

    uid: int
    gid: int
    mode: int


def access_of(status: os.stat_result) -> Access:
    """What a file or folder has that is there."""
    return Access(status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode))


def access_beside(place: Path, *, executable: bool = False) -> Access:
    """What a new file gets: as most files beside it, those of its kind first. In a
    folder without files, or one that is yet to be made, as the folder around it."""
    folder = place.parent
    while not folder.exists():
        folder = folder.parent
    around = folder.stat()
    with os.scandir(folder) as entries:
        files = sorted(e.name for e in entries if e.is_file(follow_symlinks=False))
    alike = [n for n in files if Path(n).suffix == place.suffix and n != place.name]
    found = Counter(_plain((folder / name).lstat()) for name in alike or files)
    [(most, _)] = found.most_common(1) or [(_plain(around), 1)]
    # In such a folder the kernel gives the group to what is made there.
    gid = around.st_gid if around.st_mode & stat.S_ISGID else most.gid
    mode = most.mode | (most.mode & _READ) >> 2 if executable else most.mode
    return Access(most.uid, gid, mode)


def access_within(folder: Path) -> Access:
    """What a file gets that has nothing in common with those beside it."""
    return _plain(folder.stat())


def make_folders(folder: Path) -> None:
    """Make a folder and those around it that are missing, each like the one around.

    Raises PermissionError as :func:`check_readable` does.
    """
    if folder.is_dir():
        return
    make_folders(folder.parent)
    try:
        folder.mkdir()
    except FileExistsError:
        if folder.is_dir():
            # Somebody else made it just now, and sees to it.
            return
        raise
    access = access_of(folder.parent.stat())
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        set_access(handle, access)
        check_readable(handle, access, folder)
    finally:
        os.close(handle)


def set_access(handle: int, access: Access) -> None:
    """Give an open file or folder owner, group and mode, as far as this user can."""
    for uid, gid in ((access.uid, access.gid), (-1, access.gid)):
        now = os.fstat(handle)
        if (now.st_uid, now.st_gid) != (access.uid, access.gid):
            try:
                os.fchown(handle, uid, gid)
            except OSError as error:
                # EINVAL: an owner that this user namespace does not know.
                if error.errno not in (errno.EPERM, errno.EINVAL):
                    raise
    # Not where it has it: who is not of the group would lose the folder's setgid bit.
    if stat.S_IMODE(os.fstat(handle).st_mode) != access.mode:
        os.fchmod(handle, access.mode)


def check_readable(handle: int, access: Access, place: Path) -> None:
    """Raise PermissionError where the owner could not be given, and where that shuts
    out somebody who reads what is beside ``place``."""
    now = os.fstat(handle)
    if access.mode & stat.S_IROTH:
        return
    by_group = access.mode & stat.S_IRGRP
    if now.st_gid != access.gid if by_group else now.st_uid != access.uid:
        why = (
            "it would not be readable: only root can give it what is beside it has, "
            f"owner {access.uid}, group {access.gid} and mode {access.mode:o}"
        )
        raise PermissionError(errno.EPERM, why, str(place))


def _plain(status: os.stat_result) -> Access:
    """Without the right to execute, which is each file's own."""
    return Access(status.st_uid, status.st_gid, status.st_mode & _READ_AND_WRITE)
