"""Writing a file as a whole: readers see the old contents or the new, never a part.

A file that is written in place is empty at first and incomplete for a while; a kill, a
full disk or a reader at that moment finds it so. So the bytes are written to another
file beside it, which is then renamed. :mod:`overlaykit.applying.transaction` writes
trees and files that must change together; append-only logs repair their last line.
"""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from overlaykit.core.access import (
    Access,
    access_of,
    access_within,
    check_readable,
    set_access,
)
from overlaykit.core.errors import EnvironmentFailure, Finding


def write_whole(path: Path, data: str | bytes) -> None:
    """Write a file that the user asked for; it is on disk when this returns.

    Raises EnvironmentFailure if it cannot be written; the old file then stays.
    """
    try:
        write_file(path, data)
    except OSError as error:
        raise _cannot_write(path, error) from error


def check_place(*paths: Path | None) -> None:
    """Refuse files that :func:`write_whole` could not write later: their folder is
    missing or may not be written to, or they are no regular files. Verbs that work for
    minutes ask this first. Raises EnvironmentFailure; None is no file."""
    for path in filter(None, paths):
        try:
            place = _place_of(path)
            if not os.access(place.parent, os.W_OK | os.X_OK):
                # Says why: there is no folder, it is a file, or it is closed.
                os.scandir(place.parent).close()
                raise PermissionError(f"{place.parent} may not be written to")
        except OSError as error:
            raise _cannot_write(path, error) from error


def _cannot_write(path: Path, error: OSError) -> EnvironmentFailure:
    step = "choose another file, or permit writing there"
    finding = Finding(str(error), path=str(path), next_step=step)
    return EnvironmentFailure(f"cannot write {path}", (finding,))


def _place_of(path: Path) -> Path:
    """Where a file is written: a symbolic link stays. Raises OSError for what is no
    regular file."""
    place = Path(os.path.realpath(path))
    if place.exists() and not place.is_file():
        # The rename would replace a device or a pipe by a file.
        raise OSError(f"{path} is not a regular file")
    return place


def write_file(
    path: Path, data: str | bytes, *, new: bool = False, durable: bool = True
) -> None:
    """Write a file as :func:`write_whole` does. Raises OSError; with ``new``,
    FileExistsError if the file exists. A symbolic link stays, and its target is
    written. ``durable=False`` is for files that can be made again: a power failure may
    lose them.

    A file keeps its mode and owner; a new file gets those of its folder.
    """
    place = path if new else _place_of(path)
    access = replace(access_within(place.parent), mode=0o644)
    if not new and place.exists():
        access = access_of(place.stat())
    # Names in a page may hold bytes that are not text.
    content = (
        data.encode("utf-8", "backslashreplace") if isinstance(data, str) else data
    )
    handle, part = tempfile.mkstemp(prefix=f".{place.name[:100]}-", dir=place.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            set_access(handle, access)
            if durable:
                os.fsync(handle)
        if new:
            os.link(part, place)
        else:
            os.replace(part, place)
    except BaseException:
        _remove(part)
        raise
    if new:
        _remove(part)
    if durable:
        sync_folder(place.parent)


def write_new_durably(
    path: Path, data: bytes, access: Access, place: Path | None = None
) -> None:
    """Write a file that does not exist yet. ``place`` is its later name in a tree:
    raises PermissionError if it could not be read there.
    """
    with _durable(path, data) as handle:
        set_access(handle, access)
        if place is not None:
            check_readable(handle, access, place)


def write_durably(
    path: Path, data: bytes, like: os.stat_result, times: bool = False
) -> None:
    """Write a replacement or a copy of a file, with its owner and mode and, with
    ``times``, its times. Raises OSError if they cannot be set."""
    with _durable(path, data) as handle:
        now = os.fstat(handle)
        if (now.st_uid, now.st_gid) != (like.st_uid, like.st_gid):
            os.fchown(handle, like.st_uid, like.st_gid)
        os.fchmod(handle, stat.S_IMODE(like.st_mode))
        if times:
            os.utime(handle, ns=(like.st_atime_ns, like.st_mtime_ns))


@contextmanager
def _durable(path: Path, data: bytes) -> Iterator[int]:
    """Write a new file and sync it after the block, which may set its access."""
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        yield file.fileno()
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _remove(part: str) -> None:
    with suppress(OSError):
        Path(part).unlink()
