"""The record of one run, as every gate writes it and the report reads it.

One JSON document a line, appended as a run ends, so that nothing measured is lost with
the runs after it. ``kind`` says which gate's record it is.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import TypeVar

import msgspec

from gatekit.records.fields import Misfit, decoded
from overlaykit.core.documents import to_json_line
from overlaykit.core.errors import (
    EnvironmentFailure,
    Finding,
    InputError,
    InvalidEvidence,
)


class Origin(msgspec.Struct, frozen=True, kw_only=True):
    """What was run: digests, or names that pin as much. Empty: not told. Of a command
    it is a digest: what it says of a machine, or a key, is nobody else's."""

    tree: str = ""
    series: str = ""
    image: str = ""
    command: str = ""

    def __str__(self) -> str:
        told = msgspec.structs.asdict(self).items()
        return ", ".join(f"{name} {what or 'not told'}" for name, what in told)


def command_digest(command: str) -> str:
    """Of the command line that serves an arm; of none, nothing."""
    if not command:
        return ""
    return f"sha256:{hashlib.sha256(os.fsencode(command)).hexdigest()}"


SCHEMA = 1
_STEP = "measure anew, in another folder: a record is never edited"


class Record(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind"):
    """One run of one arm. Every field is needed, those of each kind as well.
    ``started`` is in seconds since the epoch; ``seconds`` from then to its end."""

    schema: int = SCHEMA
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
            file.write(to_json_line(record) + b"\n")
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
    found: list[R] = []
    for number, line in enumerate(whole.split(b"\n"), 1):
        if not line.strip():
            continue
        try:
            record = decoded(line, kind)
        except Misfit as error:
            head = f"{path}:{number}: not a record"
            raise error.refusal(head, path, _STEP, number) from error
        if record.schema != SCHEMA:
            raise InputError(
                f"{path}:{number}: a record of schema {record.schema}, not {SCHEMA}"
            )
        for name in ("started", "seconds"):
            if (value := getattr(record, name)) < 0:
                what = f'"{name}": expected 0 seconds or more, found {value:g}'
                finding = Finding(
                    "ends before it starts" if name == "seconds" else "has no start",
                    path=str(path),
                    line=number,
                    expected=f'"{name}" of 0 seconds or more',
                    found=f"{value:g}",
                    next_step=_STEP,
                )
                raise InvalidEvidence(f"{path}:{number}: {what}", (finding,))
        found.append(record)
    return found


def _drop_torn_line(path: Path) -> None:
    data = path.read_bytes() if path.exists() else b""
    if data and not data.endswith(b"\n"):
        os.truncate(path, data.rfind(b"\n") + 1)
