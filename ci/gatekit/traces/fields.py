"""The required fields of each kind of event, and the error for an invalid event.

The collector checks fields with faster code of its own, because it reads a million
events. A rejected event is parsed again with these types, which name the faulty field.
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
# From before 2022, when no profiler recorded modules.
LEGACY_CATEGORIES = ("Kernel", "Memcpy", "Memset", "Runtime")
_LONGEST = 60

_Number = Annotated[int, msgspec.Meta(ge=0)]
_Time = Annotated[float, msgspec.Meta(ge=0)]
_Name = Annotated[str, msgspec.Meta(min_length=1)]


class _Any(msgspec.Struct):
    """Every event needs a category and a name."""

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
    # Tools that merge ranks replace process ids with names.
    pid: _Number | str
    tid: _Number


class _Span(_OnThread):
    """A module call or an annotation. Its arguments are not read."""

    args: dict[str, Any] = {}


class _Called(msgspec.Struct):
    correlation: _Number
    kernel: str = ""


class _Launch(_OnThread):
    """A runtime call that puts work on a GPU."""

    name: _Name
    args: _Called


# For frames and runtime calls that are not kept, only the name is read.
KINDS: dict[str, type[msgspec.Struct]] = {
    **dict.fromkeys(GPU_CATEGORIES, _Work),
    **dict.fromkeys(RUNTIME_CATEGORIES, _Launch),
    ANNOTATION: _Span,
    FRAME: _Span,
}


def is_thread(
    thread: tuple[int | str | None, int | str | None],
) -> TypeGuard[tuple[int | str, int]]:
    """Whether the pair is a valid process and thread."""
    pid, tid = thread
    if type(pid) is int and type(tid) is int:
        return pid >= 0 <= tid
    return type(pid) is str and type(tid) is int and tid >= 0


def complaint(text: bytes) -> str:
    """The fault of an event: its kind, its name, the field and the error.

    Raises InputError if a key is duplicate.
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
