"""Owner, group and mode of new files: the same as those of the files beside them.

The user who serves from an installed package must be able to import a module that
root, or a user with umask 077, has added to it. So a new file gets the mode, owner and
group that most files beside it have, and a new folder those of its parent folder. The
umask is ignored. Only root can set the owner; others keep their own.
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
    """The access of an existing file or folder."""
    return Access(status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode))


def access_beside(place: Path, *, executable: bool = False) -> Access:
    """The access for a new file: that of most files beside it with the same suffix,
    else of most files beside it. A folder that is empty or missing has no such files:
    then that of the nearest existing folder."""
    folder = place.parent
    while not folder.exists():
        folder = folder.parent
    around = folder.stat()
    with os.scandir(folder) as entries:
        files = sorted(e.name for e in entries if e.is_file(follow_symlinks=False))
    alike = [n for n in files if Path(n).suffix == place.suffix and n != place.name]
    found = Counter(
        _without_execute((folder / name).lstat()) for name in alike or files
    )
    [(most, _)] = found.most_common(1) or [(_without_execute(around), 1)]
    # In a setgid folder the kernel sets the group of new files.
    gid = around.st_gid if around.st_mode & stat.S_ISGID else most.gid
    mode = most.mode | (most.mode & _READ) >> 2 if executable else most.mode
    return Access(most.uid, gid, mode)


def access_within(folder: Path) -> Access:
    """The access for a file that is unrelated to those beside it: the folder's."""
    return _without_execute(folder.stat())


def make_folders(folder: Path) -> None:
    """Make a folder and its missing parents, each with the access of its parent.

    Raises PermissionError as :func:`check_readable` does.
    """
    if folder.is_dir():
        return
    make_folders(folder.parent)
    try:
        folder.mkdir()
    except FileExistsError:
        if folder.is_dir():
            # Another process has just made it, and sets its access.
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
    """Set owner, group and mode of an open file or folder, as far as this user can."""
    for uid, gid in ((access.uid, access.gid), (-1, access.gid)):
        now = os.fstat(handle)
        if (now.st_uid, now.st_gid) != (access.uid, access.gid):
            try:
                os.fchown(handle, uid, gid)
            except OSError as error:
                # EINVAL: this user namespace does not map the owner.
                if error.errno not in (errno.EPERM, errno.EINVAL):
                    raise
    # Only if it differs: a user outside the group would clear the setgid bit.
    if stat.S_IMODE(os.fstat(handle).st_mode) != access.mode:
        os.fchmod(handle, access.mode)


def check_readable(handle: int, access: Access, place: Path) -> None:
    """Raise PermissionError if the owner could not be set and users who can read the
    files beside ``place`` could therefore not read it."""
    now = os.fstat(handle)
    if access.mode & stat.S_IROTH:
        return
    by_group = access.mode & stat.S_IRGRP
    if now.st_gid != access.gid if by_group else now.st_uid != access.uid:
        why = (
            "users who read the files beside it could not read it: only root can set "
            f"owner {access.uid}, group {access.gid} and mode {access.mode:o}"
        )
        raise PermissionError(errno.EPERM, why, str(place))


def _without_execute(status: os.stat_result) -> Access:
    """The access without execute permission, which each file has for itself."""
    return Access(status.st_uid, status.st_gid, status.st_mode & _READ_AND_WRITE)
