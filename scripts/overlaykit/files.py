"""The one way to write a file that somebody will read: the whole of it, or none.

A file that is opened and written in place is empty for a moment and cut short for
another; a kill, a full disk or a reader just then finds that. So the bytes go into
another file beside it, which then takes its name. Trees, and files that must change
together, are :mod:`overlaykit.transaction`'s; logs that only grow repair their ends.
"""

from __future__ import annotations

import os
import stat
import tempfile
from contextlib import suppress
from pathlib import Path

from overlaykit.errors import EnvironmentFailure, Finding


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
    """
    place = path if new else Path(os.path.realpath(path))
    mode = 0o644
    if not new and place.exists():
        found = place.stat().st_mode
        if not stat.S_ISREG(found):
            # A device or a pipe would be gone, and a file in its place.
            raise OSError(f"{path} is not a regular file")
        mode = stat.S_IMODE(found)
    # Names in a page may be no text; a page is.
    content = (
        data.encode("utf-8", "backslashreplace") if isinstance(data, str) else data
    )
    handle, part = tempfile.mkstemp(prefix=f".{place.name[:100]}-", dir=place.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fchmod(handle, mode)
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


def write_durably(
    path: Path,
    data: bytes,
    like: os.stat_result | None = None,
    mode: str = "100644",
    times: bool = False,
) -> None:
    """Write a file that is not there yet; ``like`` gives its owner and mode, and with
    ``times`` its times too."""
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        handle = file.fileno()
        now = os.fstat(handle)
        if like is not None:
            if (now.st_uid, now.st_gid) != (like.st_uid, like.st_gid):
                os.fchown(handle, like.st_uid, like.st_gid)
            os.fchmod(handle, stat.S_IMODE(like.st_mode))
            if times:
                os.utime(handle, ns=(like.st_atime_ns, like.st_mtime_ns))
        elif mode == "100755":
            readers = now.st_mode & 0o444
            os.fchmod(handle, stat.S_IMODE(now.st_mode) | readers >> 2)
        os.fsync(handle)


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
