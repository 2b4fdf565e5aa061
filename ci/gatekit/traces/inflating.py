"""A file's text, decompressed where it is a gzip, in pieces of bounded size.

By ISA-L where its package is installed (the gate's requirements have it), in two fifths
of zlib's time; by zlib where not. Both check a member's sum, and are asked the same.
"""

from __future__ import annotations

import importlib
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from overlaykit.cli import progress
from overlaykit.core.errors import InputError

# Small: cut up within the processor's cache, and, under malloc's 128 KB, in memory that
# is not taken from the system anew each time.
_CHUNK = 1 << 15
# What is left of the input is copied at every step of decompression: little at once.
_ZIPPED = 1 << 15
_QUIET_SECONDS = 2


def _inflater() -> Any:
    """The module: ISA-L's has the names of zlib's, and an error of its own."""
    try:
        return importlib.import_module("isal.isal_zlib")
    except ImportError:
        return zlib


def is_zipped(path: Path) -> bool:
    """By its first bytes, whatever its name."""
    with path.open("rb") as file:
        return file.read(2) == b"\x1f\x8b"


def chunks(path: Path) -> Iterator[bytes]:
    """Raises InputError for a gzip that is cut short or damaged."""
    total = path.stat().st_size
    quiet_until = time.monotonic() + _QUIET_SECONDS
    zipped = is_zipped(path)
    with path.open("rb") as file:
        plain = iter(lambda: file.read(_CHUNK), b"")
        for piece in _unzipped(file) if zipped else plain:
            yield piece
            if time.monotonic() > quiet_until:
                quiet_until += 1
                progress(f"{path.name}, KB", file.tell() // 1000, total // 1000)


def _unzipped(file: BinaryIO) -> Iterator[bytes]:
    """Of every member of the file; none may be cut short or damaged."""
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
        # Zeros after a member are padding, as gzip itself takes them; so are many.
        data = inflate.unused_data.lstrip(b"\0")
        while not data and (more := file.read(_ZIPPED)):
            data = more.lstrip(b"\0")
