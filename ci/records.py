"""The record of one run, as every gate writes it and the report reads it.

One JSON document a line, appended as a run ends, so that nothing measured is lost with
the runs after it. ``kind`` says which gate's record it is.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TypeVar

import msgspec

from overlaykit.errors import EnvironmentFailure, InputError


class Origin(msgspec.Struct, frozen=True, kw_only=True):
    """What was run: digests, or names that pin as much. Empty: not told."""

    tree: str = ""
    series: str = ""
    image: str = ""
    command: str = ""


class Record(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind"):
    """One run of one arm. ``started`` is in seconds since the epoch."""

    schema: int = 1
    arm: str
    origin: Origin
    started: float
    seconds: float


R = TypeVar("R", bound=Record)


def append(path: Path, record: Record) -> None:
    """On disk when this returns. Raises EnvironmentFailure."""
    try:
        _drop_torn_line(path)
        with path.open("ab") as file:
            file.write(msgspec.json.encode(record) + b"\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise EnvironmentFailure(f"cannot write {path}: {error.strerror}") from error


def read(path: Path, kind: type[R]) -> list[R]:
    """Every whole record; a last line without its end was being written when its
    writer was killed, and is none. Raises InputError, EnvironmentFailure."""
    try:
        whole = path.read_bytes().rpartition(b"\n")[0]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise EnvironmentFailure(f"cannot read {path}: {error.strerror}") from error
    decoder = msgspec.json.Decoder(kind)
    found: list[R] = []
    for number, line in enumerate(whole.split(b"\n"), 1):
        if not line.strip():
            continue
        try:
            found.append(decoder.decode(line))
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise InputError(f"{path}:{number}: not a record: {error}") from error
    return found


def _drop_torn_line(path: Path) -> None:
    data = path.read_bytes() if path.exists() else b""
    if data and not data.endswith(b"\n"):
        os.truncate(path, data.rfind(b"\n") + 1)
