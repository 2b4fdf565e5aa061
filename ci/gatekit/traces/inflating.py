"""A file's text in pieces of bounded size, decompressed if it is a gzip.

ISA-L is used if its package is installed (it is in the gate's requirements) and takes
two fifths of zlib's time; otherwise zlib. Both verify the checksum and have one API.
"""

from __future__ import annotations

import importlib
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from overlaykit.cli import progress
from overlaykit.core.errors import Finding, InputError

# Small enough for the processor's cache, and below malloc's 128 KB threshold, so that
# memory is reused.
_CHUNK = 1 << 15
# The rest of the input is copied at every decompression step, so keep it small.
_ZIPPED = 1 << 15
_QUIET_SECONDS = 2
# Real traces unpack to 10 to 30 times their size. A small one may repeat more.
_MOST_TIMES = 100
_SMALL = 1 << 28


def _inflater() -> Any:
    """The module to use. ISA-L's has zlib's names, but its own error class."""
    try:
        return importlib.import_module("isal.isal_zlib")
    except ImportError:
        return zlib


def is_zipped(path: Path) -> bool:
    """Whether the file is a gzip, by its first bytes."""
    with path.open("rb") as file:
        return file.read(2) == b"\x1f\x8b"


def chunks(path: Path) -> Iterator[bytes]:
    """Raises InputError if a gzip is truncated or damaged, or unpacks to far more than
    any trace."""
    total = path.stat().st_size
    quiet_until = time.monotonic() + _QUIET_SECONDS
    zipped = is_zipped(path)
    with path.open("rb") as file:
        plain = iter(lambda: file.read(_CHUNK), b"")
        unzipped = _bounded(_unzipped(file), max(_SMALL, _MOST_TIMES * total))
        for piece in unzipped if zipped else plain:
            yield piece
            if time.monotonic() > quiet_until:
                quiet_until += 1
                progress(f"{path.name}, KB", file.tell() // 1000, total // 1000)


def _bounded(pieces: Iterator[bytes], most: int) -> Iterator[bytes]:
    size = 0
    for piece in pieces:
        size += len(piece)
        if size > most:
            what = f"the gzip unpacks to more than {most} bytes"
            step = (
                "do not use this file until you know who made it and why; if it is a "
                "trace, unpack it and give the unpacked file"
            )
            raise InputError(what, (Finding(what, next_step=step),))
        yield piece


def _unzipped(file: BinaryIO) -> Iterator[bytes]:
    """The text of all members of the file; each must be complete."""
    inflater = _inflater()
    data = file.read(_ZIPPED)
    while data:
        inflate = inflater.decompressobj(wbits=31)
        while not inflate.eof:
            if not data:
                raise InputError("the gzip stream ends early: truncated or unfinished")
            try:
                piece = inflate.decompress(data, _CHUNK)
            except inflater.error as error:
                raise InputError(f"damaged gzip: {error}") from error
            if piece:
                yield piece
            data = inflate.unconsumed_tail or (
                b"" if inflate.eof else file.read(_ZIPPED)
            )
        # Zeros after a member are padding, of any length, as for gzip itself.
        data = inflate.unused_data.lstrip(b"\0")
        while not data and (more := file.read(_ZIPPED)):
            data = more.lstrip(b"\0")
