"""Files that outlive a power failure: written, fsynced, and their folder fsynced."""

from __future__ import annotations

import os
import stat
from pathlib import Path


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
    """Make what was made, renamed and removed in a folder durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
