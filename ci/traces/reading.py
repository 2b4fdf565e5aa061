"""Reading a trace file: plain or gzip, of any size, whole or refused.

The profiler writes every event on lines of its own, always the same way; such a file is
cut at those lines as it is decompressed, and only the events that are kept are parsed.
Any other arrangement of the same JSON is parsed whole. Which of the two is decided by
the file: its first bytes, and every event's first bytes after that. A gzip's check sum
says that what is left unread is whole; a plain file has none, so all of it is parsed.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from overlaykit.errors import EnvironmentFailure, Finding, InputError
from traces.events import Collector, Trace
from traces.inflating import chunks, is_zipped

# No event of the profiler's, nor what is before them, comes near: cut differently then.
_LONGEST = 1 << 20
_OPENING = b'"traceEvents": [\n  {\n'
_BETWEEN = b"\n  },\n  {\n"
_CLOSING = b"\n  }\n  ]"
_X = b'    "ph": "X", "cat": "'
_FRAME = _X + b'python_function", "name": "'
_MODULE = _FRAME + b"nn.Module: "
# Nothing is kept of Python's frames but modules. They are most of a file, and told by
# where they sort, in half the time of ``startswith``; \xff is above any text.
_FRAMES_END, _MODULES_END = _FRAME + b"\xff", _MODULE + b"\xff"
# Other kinds of events that nothing is kept of, by their first bytes.
_SKIPPED = (
    _X + b'cpu_op"',
    b'    "ph": "s", "id": ',
    b'    "ph": "f", "id": ',
    b'    "ph": "i", "cat": "cpu_instant_event"',
    _X + b'cuda_runtime", "name": "hipGetDevice',
)
_WRITING = "wait until the profiler has finished, or copy the file again"


class _Unfamiliar(Exception):
    """The file is not laid out as the profiler does it."""


class _Device(msgspec.Struct, frozen=True):
    name: str = ""


class _Distributed(msgspec.Struct, frozen=True):
    rank: int | None = None
    world_size: int | None = None


class _Document(msgspec.Struct, frozen=True):
    traceEvents: list[msgspec.Raw]
    deviceProperties: list[_Device] = []
    distributedInfo: _Distributed = _Distributed()


_document = msgspec.json.Decoder(_Document).decode
_list = msgspec.json.Decoder(list[msgspec.Raw]).decode


def read_trace(path: Path) -> Trace:
    """Read one file. Raises InputError for anything but one whole trace."""
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
        raise _refusal(path, error.message, _WRITING) from error
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise _refusal(path, "the file changed while it was read", _WRITING)
    if not (collector.work or collector.launches):
        raise _refusal(
            path,
            "holds no GPU work and no launches: profiled without a GPU?",
            "profile with both CPU and GPU activities",
        )
    devices, distributed = document.deviceProperties, document.distributedInfo
    return Trace(
        path=str(path),
        layout=layout,
        size=before.st_size,
        gpu=devices[0].name if devices else "",
        rank=distributed.rank,
        world=distributed.world_size,
        work=collector.work,
        launches=collector.launches,
        spans=collector.spans,
    )


def _refusal(path: Path, what: str, step: str) -> InputError:
    finding = Finding(
        what, path=str(path), expected="one whole profiler trace", next_step=step
    )
    return InputError(f"not a trace that can be judged: {path.name}", (finding,))


def _by_lines(path: Path, collector: Collector) -> _Document:
    """Cut the file between events, and parse those that are kept."""
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
        raise InputError("the JSON ends early: truncated or still being written")
    _keep([*events, last], collector, skipped)
    try:
        document = _document(head[:at] + b'"traceEvents": []' + tail)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _Unfamiliar from error
    if document.traceEvents:  # A second list of them: the last counts, as in any JSON.
        raise _Unfamiliar
    return document


def _keep(
    events: list[bytes], collector: Collector, skipped: tuple[bytes, ...]
) -> None:
    if skipped:
        events = [
            event
            for event in events
            if not (_FRAME <= event < _MODULE or _MODULES_END <= event < _FRAMES_END)
        ]
    try:
        for event in events:
            if not event.startswith(skipped):
                collector.take(b"{" + event + b"}")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _Unfamiliar from error


def _whole(path: Path, collector: Collector) -> _Document:
    """Parse the document, however it is laid out."""
    text = b"".join(chunks(path))
    start = text[:64].lstrip()[:1]
    if start not in (b"{", b"["):
        kind = "a pickle, as memory snapshots are" if start == b"\x80" else "not JSON"
        raise InputError(f"{kind}" if text else "empty")
    try:
        # Viewers also take the bare list of events.
        document = _document(text) if start == b"{" else _Document(_list(text))
        for event in document.traceEvents:
            collector.take(event)
    except msgspec.ValidationError as error:
        raise InputError(f"JSON, but no trace ({error}): a memory snapshot?") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"truncated, unfinished or damaged JSON: {error}") from error
    return document
