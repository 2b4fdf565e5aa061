"""Which fields each kind of event must have, and what an event that lacks one is told.

The collector tests them as it goes, in its own way, for it does so a million times. An
event that it refuses is read again by these types, which name the field and its fault.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, TypeGuard

import msgspec

from gatekit.records.fields import misfit
from gatekit.traces.wellformed import loads

GPU_CATEGORIES = ("kernel", "gpu_memcpy", "gpu_memset")
RUNTIME_CATEGORIES = ("cuda_runtime", "cuda_driver", "hip_runtime")
ANNOTATION, FRAME = "user_annotation", "python_function"
MODULE_PREFIX = "nn.Module: "
# Before 2022, when no profiler wrote down modules.
LEGACY_CATEGORIES = ("Kernel", "Memcpy", "Memset", "Runtime")
_LONGEST = 60

_Number = Annotated[int, msgspec.Meta(ge=0)]
_Time = Annotated[float, msgspec.Meta(ge=0)]
_Name = Annotated[str, msgspec.Meta(min_length=1)]


class _Any(msgspec.Struct):
    """What is told apart by kind must have one."""

    ph: str
    cat: _Name
    name: str


class _Timed(_Any):
    ts: _Time
    dur: float


class _OnGpu(msgspec.Struct):
    device: _Number
    stream: _Number
    correlation: _Number


class _Work(_Timed):
    """A kernel, copy or fill on a GPU."""

    name: _Name
    args: _OnGpu


class _OnThread(_Timed):
    # A merger of ranks names processes anew.
    pid: _Number | str
    tid: _Number


class _Span(_OnThread):
    """A module's call, or an annotated range. Nothing is read of its arguments."""

    args: dict[str, Any] = {}


class _Called(msgspec.Struct):
    correlation: _Number
    kernel: str = ""


class _Launch(_OnThread):
    """A call of the runtime that puts work on a GPU."""

    name: _Name
    args: _Called


# Of a frame or a runtime call that nothing is kept of, the name alone is read.
KINDS: dict[str, type[msgspec.Struct]] = {
    **dict.fromkeys(GPU_CATEGORIES, _Work),
    **dict.fromkeys(RUNTIME_CATEGORIES, _Launch),
    ANNOTATION: _Span,
    FRAME: _Span,
}


def is_thread(
    thread: tuple[int | str | None, int | str | None],
) -> TypeGuard[tuple[int | str, int]]:
    """Whether an event says on which it happened."""
    pid, tid = thread
    if type(pid) is int and type(tid) is int:
        return pid >= 0 <= tid
    return type(pid) is str and type(tid) is int and tid >= 0


def complaint(text: bytes) -> str:
    """What is wrong with an event: its kind, its name, the field and the fault.

    Raises InputError if it is that a key is there twice.
    """
    event = loads(text)
    assert isinstance(event, dict)
    subject = f"{event.get('cat') or 'event'} {_short(event.get('name'))}"
    kind = KINDS.get(str(event.get("cat")), _Any)
    try:
        msgspec.json.decode(text, type=kind)
    except msgspec.ValidationError as error:
        return f"{subject}: {misfit(error).what}"
    if event["ph"] != "X":
        return f'{subject}: "ph" is {json.dumps(event["ph"])}, not "X"'
    return f"{subject}: a time is beyond any clock"


def _short(value: Any) -> str:
    if not isinstance(value, str) or not value:
        return "without a name"
    return f'"{value if len(value) <= _LONGEST else value[:_LONGEST] + "..."}"'
