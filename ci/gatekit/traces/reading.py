"""Read a trace file of any size, plain or gzip; incomplete files are rejected.

The profiler writes every event on its own lines, always in the same format. Such a file
is split at those lines while it is decompressed, and only the events that are kept are
parsed. JSON in any other format is parsed as one document. The file's first bytes, the
first bytes of every event, and its end decide which reader is used. A gzip's checksum
proves that the skipped parts are intact; a plain file has none, so all of it is parsed.
Errors always come from the document reader, which knows the position.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import msgspec

from gatekit.traces.events import Collector, Trace
from gatekit.traces.inflating import chunks, is_zipped
from gatekit.traces.wellformed import fault, loads
from overlaykit.core.errors import EnvironmentFailure, Finding, InputError

# Longer than any profiler event or header; a longer one means another format.
_LONGEST = 1 << 20
_OPENING = b'"traceEvents": [\n  {\n'
_BETWEEN = b"\n  },\n  {\n"
_CLOSING = b"\n  }\n  ]"
_X = b'    "ph": "X", "cat": "'
_FRAME = _X + b'python_function", "name": "'
_MODULE = _FRAME + b"nn.Module: "
# Of Python frames only modules are kept. Frames are most of a file; comparing sort
# order takes half the time of ``startswith``. \xff sorts after any text.
_FRAMES_END, _MODULES_END = _FRAME + b"\xff", _MODULE + b"\xff"
# First bytes of other events that are not kept.
_SKIPPED = (
    _X + b'cpu_op"',
    b'    "ph": "s", "id": ',
    b'    "ph": "f", "id": ',
    b'    "ph": "i", "cat": "cpu_instant_event"',
    _X + b'cuda_runtime", "name": "hipGetDevice',
)
_BEFORE = re.compile(rb'"traceEvents"\s*:\s*\[\s*\Z')
_PROFILER = "give the file exactly as the profiler wrote it"
_WRITING = "wait until the profiler has finished, or copy the file again"


class _Unfamiliar(Exception):
    """The file is not in the profiler's own format."""


class _Device(msgspec.Struct, frozen=True):
    name: str = ""


_Count = Annotated[int, msgspec.Meta(ge=0)] | msgspec.UnsetType


class _Distributed(msgspec.Struct, frozen=True):
    """Both fields are optional, and neither may be null."""

    rank: _Count = msgspec.UNSET
    world_size: _Count = msgspec.UNSET


class _Document(msgspec.Struct, frozen=True):
    traceEvents: list[msgspec.Raw]
    deviceProperties: list[_Device] = []
    distributedInfo: _Distributed = _Distributed()


_document = msgspec.json.Decoder(_Document).decode
_object = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_lists = msgspec.json.Decoder(list[dict[str, msgspec.Raw]]).decode
_EVENTS = b'"traceEvents"'
_KEYS_OF_EVENTS = frozenset({"ph", "cat", "ts"})
_list = msgspec.json.Decoder(list[msgspec.Raw]).decode


def read_trace(path: Path) -> Trace:
    """Read one file. Raises InputError unless it is one complete trace."""
    try:
        before = path.stat()
        collector = Collector()
        try:
            document, layout = _by_lines(path, collector), "lines"
        except _Unfamiliar:
            collector = Collector()
            document, layout = _whole(path, collector), "document"
        after = path.stat()
    except OSError as error:
        raise EnvironmentFailure(f"cannot read {path}: {error.strerror}") from error
    except InputError as error:
        raise _refusal(path, error) from error
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise _refusal(path, InputError("the file changed while it was read"))
    if not (collector.work or collector.launches):
        raise _refusal(path, _nothing(collector))
    devices, distributed = document.deviceProperties, document.distributedInfo
    return Trace(
        path=str(path),
        layout=layout,
        size=before.st_size,
        gpu=devices[0].name if devices else "",
        rank=_stated(distributed.rank),
        world=_stated(distributed.world_size),
        work=collector.work,
        launches=collector.launches,
        spans=collector.spans,
    )


def may_be_trace(path: Path) -> bool:
    """Whether a file in a directory is read as a trace: every file except complete JSON
    without events. A truncated or damaged file may have been a trace."""
    pieces = chunks(path)
    text = b""
    try:
        for piece in pieces:
            text += piece
            if _EVENTS in text[: _LONGEST + len(piece)]:
                return True
            if len(text) > _LONGEST:
                break
        # Most traces are recognised by their beginning; the others are read whole.
        text += b"".join(pieces)
        if text.lstrip()[:1] == b"[":
            return bool(_events(text))
        return "traceEvents" in _object(text)
    except msgspec.ValidationError:
        return False
    except (msgspec.DecodeError, UnicodeDecodeError, InputError):
        return True


def _stated(count: int | msgspec.UnsetType) -> int | None:
    return None if count is msgspec.UNSET else count


def _refusal(path: Path, error: InputError) -> InputError:
    finding = error.findings[0] if error.findings else Finding(error.message)
    finding = replace(
        finding,
        path=str(path),
        expected="one complete profiler trace",
        next_step=finding.next_step or _WRITING,
    )
    return InputError(f"not a readable trace: {path.name}", (finding,))


def _refused(what: str, step: str, line: int | None = None) -> InputError:
    return InputError(what, (Finding(what, line=line, next_step=step),))


def _nothing(collector: Collector) -> InputError:
    if collector.legacy:
        return _refused(
            f"contains {collector.legacy} events of Kineto's old categories (Kernel, "
            "Runtime); profilers of that time did not record modules",
            "profile with PyTorch 1.12 or later",
        )
    return _refused(
        "contains no GPU work and no launches: profiled without a GPU?",
        "profile with both CPU and GPU activities",
    )


def _by_lines(path: Path, collector: Collector) -> _Document:
    """Split the file into events, and parse those that are kept."""
    pieces = chunks(path)
    skipped = _SKIPPED if is_zipped(path) else ()
    head = b""
    for piece in pieces:
        head += piece
        if (at := head.find(_OPENING)) >= 0:
            break
        if len(head) > _LONGEST:
            raise _Unfamiliar
    else:
        raise _Unfamiliar
    rest = head[at + len(_OPENING) :]
    for piece in pieces:
        events = (rest + piece).split(_BETWEEN)
        rest = events.pop()
        if len(rest) > _LONGEST:
            raise _Unfamiliar
        _keep(events, collector, skipped)
    *events, rest = rest.split(_BETWEEN)
    last, closing, tail = rest.partition(_CLOSING)
    if not closing:
        raise _Unfamiliar
    _keep([*events, last], collector, skipped)
    around = head[:at] + b'"traceEvents": []' + tail
    try:
        loads(around)
        return _document(around)
    except (msgspec.DecodeError, InputError, RecursionError) as error:
        raise _Unfamiliar from error


def _keep(
    events: list[bytes], collector: Collector, skipped: tuple[bytes, ...]
) -> None:
    if skipped:
        events = [
            event
            for event in events
            if not (_FRAME <= event < _MODULE or _MODULES_END <= event < _FRAMES_END)
        ]
    take = collector.take
    try:
        for event in events:
            if not event.startswith(skipped):
                take(b"{" + event + b"}")
    except (
        msgspec.DecodeError,
        UnicodeDecodeError,
        InputError,
        RecursionError,
    ) as error:
        raise _Unfamiliar from error


def _whole(path: Path, collector: Collector) -> _Document:
    """Parse the whole document, in any JSON format."""
    text = b"".join(chunks(path))
    start = text[:64].lstrip()[:1]
    if start not in (b"{", b"["):
        kind = "a pickle, as memory snapshots are" if start == b"\x80" else "not JSON"
        raise InputError(f"{kind}" if text else "empty")
    try:
        return _parsed(text, start, collector)
    except RecursionError as error:
        raise InputError("damaged JSON: nested too deeply") from error


def _parsed(text: bytes, start: bytes, collector: Collector) -> _Document:
    try:
        # Viewers also accept a bare list of events.
        document = _document(text) if start == b"{" else _Document(_events(text))
    except msgspec.ValidationError as error:
        what = f"the header is not in the profiler's format: {error}"
        if "traceEvents" in str(error) or start == b"[":
            what = f"JSON, but not a trace ({error}): a memory snapshot?"
        raise _refused(what, _PROFILER) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        found = fault(text, error)
        raise InputError(found.what, (found,)) from error
    for number, event in enumerate(document.traceEvents):
        try:
            collector.take(event)
        except (msgspec.DecodeError, UnicodeDecodeError, InputError) as error:
            reason = error.message if isinstance(error, InputError) else str(error)
            if not isinstance(error, msgspec.ValidationError | InputError):
                reason = fault(bytes(event), error).what
            line = text.count(b"\n", 0, text.find(bytes(event))) + 1
            what = f"event {number} is not in the profiler's format: {reason}"
            raise _refused(what, _PROFILER, line) from error
    if document.traceEvents and start == b"{":
        _once(text, document.traceEvents)
    return document


def _events(text: bytes) -> list[msgspec.Raw]:
    """Raises ``msgspec.ValidationError`` if the list does not contain events."""
    if not any(map(_KEYS_OF_EVENTS.intersection, _lists(text))):
        raise msgspec.ValidationError("a list without events")
    return _list(text)


def _once(text: bytes, events: list[msgspec.Raw]) -> None:
    """Reject duplicate keys around the events. If the events cannot be separated, as
    with two lists of them, the whole document is checked."""
    first, last = bytes(events[0]), bytes(events[-1])
    head = text[: text.find(first)]
    alone = text.count(_EVENTS) == 1 and _BEFORE.search(head)
    around = head + text[text.rfind(last) + len(last) :]
    try:
        loads(around if alone else text)
    except InputError as error:
        raise _refused(error.message, _PROFILER) from error
