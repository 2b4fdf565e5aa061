"""The one way to write a file that somebody will read: the whole of it, or none.

A file that is opened and written in place is empty for a moment and cut short for
another; a kill, a full disk or a reader just then finds that. So the bytes go into
another file beside it, which then takes its name. Trees, and files that must change
together, are :mod:`overlaykit.applying.transaction`'s; logs that only grow repair their
ends.
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
    """Write a file that was asked for; on disk when this returns.

    Raises EnvironmentFailure where it cannot be written; what was there is there still.
    """
    try:
        put(path, data)
    except OSError as error:
        step = "name another file, or permit writing there"
        finding = Finding(str(error), path=str(path), next_step=step)
        raise EnvironmentFailure(f"cannot write {path}", (finding,)) from error


def put(
    path: Path, data: str | bytes, *, new: bool = False, durable: bool = True
) -> None:
    """See :func:`write_whole`. Raises OSError; with ``new`` FileExistsError where there
    is a file. A link stays, and the file that it leads to is written. ``durable`` False
    is for what can be made again: a power cut may take it.

    A file keeps its mode and owner; a new one is its folder's owner's.
    """
    place = path if new else Path(os.path.realpath(path))
    access = replace(access_within(place.parent), mode=0o644)
    if not new and place.exists():
        found = place.stat()
        if not stat.S_ISREG(found.st_mode):
            # A device or a pipe would be gone, and a file in its place.
            raise OSError(f"{path} is not a regular file")
        access = access_of(found)
    # Names in a page may be no text; a page is.
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
    """Write a file that is not there yet. ``place`` is the name that it will take in a
    tree: raises PermissionError where it could not be read there.
    """
    with _durable(path, data) as handle:
        set_access(handle, access)
        if place is not None:
            check_readable(handle, access, place)


def write_durably(
    path: Path, data: bytes, like: os.stat_result, times: bool = False
) -> None:
    """Write what takes the place of a file, or keeps its contents: with its owner and
    mode, and with ``times`` its times. Raises OSError where it cannot have them."""
    with _durable(path, data) as handle:
        now = os.fstat(handle)
        if (now.st_uid, now.st_gid) != (like.st_uid, like.st_gid):
            os.fchown(handle, like.st_uid, like.st_gid)
        os.fchmod(handle, stat.S_IMODE(like.st_mode))
        if times:
            os.utime(handle, ns=(like.st_atime_ns, like.st_mtime_ns))


@contextmanager
def _durable(path: Path, data: bytes) -> Iterator[int]:
    """A new file with its contents; on disk after the block, which sees to the rest."""
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
