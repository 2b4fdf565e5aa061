"""The record of one run: one JSON document per line, appended when the run ends.

A crash in a later run therefore loses no measurement. ``kind`` names the type of
record.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TypeVar

import msgspec

from gatekit.records.fields import Misfit, decoded
from overlaykit.core.digests import sha256
from overlaykit.core.documents import to_json_line
from overlaykit.core.errors import (
    EnvironmentFailure,
    Finding,
    InputError,
    InvalidEvidence,
)


class Origin(msgspec.Struct, frozen=True, kw_only=True):
    """What a run was made from: digests, or names that pin as much. Empty means not
    recorded. ``command`` is a digest, because a command line may hold a host or a
    key."""

    tree: str = ""
    series: str = ""
    image: str = ""
    command: str = ""

    def __str__(self) -> str:
        fields = msgspec.structs.asdict(self).items()
        return ", ".join(f"{name} {value or 'not recorded'}" for name, value in fields)


def command_digest(command: str) -> str:
    """The digest of the command line that serves an arm; empty if there is none."""
    return sha256(os.fsencode(command)) if command else ""


SCHEMA = 1
_STEP = "measure again in another folder: records must not be edited"


class Record(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind"):
    """One run of one arm. All fields are required, also those that a kind adds.
    ``started`` is in seconds since the epoch; ``seconds`` is how long the run took."""

    schema: int = SCHEMA
    arm: str
    origin: Origin
    started: float
    seconds: float


R = TypeVar("R", bound=Record)


def append(path: Path, record: Record) -> None:
    """Append a record; it is on disk on return. Raises EnvironmentFailure."""
    try:
        _drop_partial_line(path)
        with path.open("ab") as file:
            file.write(to_json_line(record) + b"\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise EnvironmentFailure(f"cannot write {path}: {error.strerror}") from error


def read(path: Path, kind: type[R]) -> list[R]:
    """Every complete record. A last line without a line end is ignored: its writer was
    killed. Raises InputError, InvalidEvidence and EnvironmentFailure."""
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
                f"{path}:{number}: the record has schema {record.schema}, not {SCHEMA}"
            )
        for name in ("started", "seconds"):
            if (value := getattr(record, name)) < 0:
                what = f'"{name}": expected 0 seconds or more, found {value:g}'
                finding = Finding(
                    "the run ends before it starts"
                    if name == "seconds"
                    else "the run has no start",
                    path=str(path),
                    line=number,
                    expected=f'"{name}" of 0 seconds or more',
                    found=f"{value:g}",
                    next_step=_STEP,
                )
                raise InvalidEvidence(f"{path}:{number}: {what}", (finding,))
        found.append(record)
    return found


def _drop_partial_line(path: Path) -> None:
    data = path.read_bytes() if path.exists() else b""
    if data and not data.endswith(b"\n"):
        os.truncate(path, data.rfind(b"\n") + 1)
