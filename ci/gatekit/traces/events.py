"""The parts of a trace that are kept: GPU work, launches, and module spans.

Everything else (Python frames, operators, flow arrows) is nine tenths of a file and
does not show which module a kernel belongs to. Times are whole nanoseconds, because
profilers write microseconds with three decimals, which a float cannot always hold.

A record without a required field is rejected instead of given a default:
:mod:`gatekit.traces.fields` lists the fields of each kind. A record with a duplicate
key is rejected too, because JSON readers disagree on its value.
"""

from __future__ import annotations

import re
from decimal import Decimal, InvalidOperation

import msgspec

from gatekit.traces.fields import (
    ANNOTATION,
    FRAME,
    GPU_CATEGORIES,
    KINDS,
    LEGACY_CATEGORIES,
    MODULE_PREFIX,
    RUNTIME_CATEGORIES,
    complaint,
    is_thread,
)
from gatekit.traces.wellformed import loads
from overlaykit.core.errors import InputError

# More digits than any clock's nanoseconds or any module number have.
_DIGITS = 24
# Calls that put work on a GPU; all other runtime calls are dropped.
_LAUNCHES = re.compile(
    r"(?:cuda|hip|cu)\w*?(?:Launch(?!Host)|Mem(?:cpy|set))", re.ASCII
)


class Work(msgspec.Struct, frozen=True, gc=False):
    """A kernel, copy or fill that ran on a GPU."""

    name: str
    category: str
    start: int
    duration: int
    device: int
    stream: int
    correlation: int


class Launch(msgspec.Struct, frozen=True, gc=False):
    """A call that put work on a GPU, or that a capture recorded into a graph.

    ``kernel`` is the kernel's name if the profiler writes it (ROCm's does). ``empty``
    means that the profiler recorded a size of 0 bytes for a memory call.
    """

    call: str
    kernel: str
    start: int
    end: int
    thread: tuple[int | str, int]
    correlation: int
    empty: bool = False

    @property
    def is_graph(self) -> bool:
        return "GraphLaunch" in self.call

    @property
    def is_kernel(self) -> bool:
        """Whether it starts exactly one kernel; a memory call may start none or
        several."""
        return "Launch" in self.call and not self.is_graph

    @property
    def is_fill(self) -> bool:
        """Whether it is a memset, which is never a copy."""
        return "Memset" in self.call and "Memcpy" not in self.call


class Span(msgspec.Struct, frozen=True, gc=False):
    """One call of an ``nn.Module`` (class and instance number), or an annotation."""

    module: str
    instance: int
    start: int
    end: int
    thread: tuple[int | str, int]
    annotation: bool


class Trace(msgspec.Struct, frozen=True, gc=False):
    """The contents of one file. ``layout`` names the reader: lines or document."""

    path: str
    layout: str
    size: int
    gpu: str
    rank: int | None
    world: int | None
    work: list[Work]
    launches: list[Launch]
    spans: list[Span]


class _Event(msgspec.Struct, gc=False):
    """Any event. Missing fields are detected only if the event is kept."""

    ph: str = ""
    cat: str = ""
    name: str | None = None
    pid: int | str | None = None
    tid: int | str | None = None
    ts: msgspec.Raw = msgspec.Raw(b"")
    dur: msgspec.Raw = msgspec.Raw(b"")
    args: msgspec.Raw = msgspec.Raw(b"{}")


_event = msgspec.json.Decoder(_Event).decode
_args = msgspec.json.Decoder(dict[str, object]).decode
# The number of keys of a profiler event, so also of its colons outside strings.
_KEYS = len(msgspec.structs.fields(_Event))


def nanoseconds(raw: bytes) -> int:
    """Exactly, from microseconds as JSON writes numbers.

    Raises InputError if the text is not a time: empty, a word, or beyond any clock.
    """
    if raw[-4:-3] == b".":  # The profiler's own format.
        digits = raw[:-4] + raw[-3:]
        if digits.isdigit() and len(digits) <= _DIGITS:
            return int(digits)
    try:
        found = Decimal(raw.decode())
        if found.is_finite() and found.adjusted() < _DIGITS:
            return round(found * 1000)
    except (InvalidOperation, UnicodeDecodeError):
        pass
    raise InputError(f"not a time: {raw[:40].decode(errors='replace')}")


def split_module(name: str) -> tuple[str, int]:
    """``nn.Module: Attention_3`` is the fourth instance; without a number, the
    first."""
    stem, _, number = name.removeprefix(MODULE_PREFIX).rpartition("_")
    if stem and number.isdecimal() and len(number) <= _DIGITS:
        return stem, int(number)
    return name.removeprefix(MODULE_PREFIX), 0


class Collector:
    """Takes events as JSON texts, in any order, and keeps the parts of a
    :class:`Trace`.

    Both readers use this class, so they differ only in how they find events.
    """

    def __init__(self) -> None:
        self.work: list[Work] = []
        self.launches: list[Launch] = []
        self.spans: list[Span] = []
        self.legacy = 0
        # Kernel names are few and long: intern them.
        self._once = dict[str, str]().setdefault

    def take(self, text: bytes | msgspec.Raw) -> None:
        """Raises ``msgspec.DecodeError`` if the text is not an event, InputError if the
        event lacks a required field."""
        event = _event(text)
        category, name = event.cat, event.name
        if event.ph != "X":
            if category in KINDS:
                raise InputError(complaint(bytes(text)))
        elif name is None or not category:
            raise InputError(complaint(bytes(text)))
        elif category in GPU_CATEGORIES:
            self._take_work(event, name, bytes(text))
        elif category in RUNTIME_CATEGORIES:
            if _LAUNCHES.match(name):
                self._take_launch(event, name, bytes(text))
            elif not name:
                raise InputError(complaint(bytes(text)))
        elif category == ANNOTATION or (
            category == FRAME and name.startswith(MODULE_PREFIX)
        ):
            self._take_span(event, name, bytes(text))
        elif category in LEGACY_CATEGORIES:
            self.legacy += 1

    def _take_work(self, event: _Event, name: str, text: bytes) -> None:
        args = _arguments(event, name, text)
        start, duration = _times(event, text)
        device, stream = args.get("device"), args.get("stream")
        correlation = args.get("correlation")
        if not (
            name
            and type(device) is int is type(stream)
            and type(correlation) is int
            and device >= 0 <= stream
            and correlation >= 0
        ):
            raise InputError(complaint(text))
        self.work.append(
            Work(
                self._once(name, name),
                self._once(event.cat, event.cat),
                start,
                duration,
                device,
                stream,
                correlation,
            )
        )

    def _take_launch(self, event: _Event, name: str, text: bytes) -> None:
        args = _arguments(event, name, text)
        start, duration = _times(event, text)
        correlation, kernel = args.get("correlation"), args.get("kernel", "")
        thread = event.pid, event.tid
        if not (
            type(correlation) is int
            and correlation >= 0
            and type(kernel) is str
            and is_thread(thread)
        ):
            raise InputError(complaint(text))
        # ROCm writes a copy's size under one of two names. Neither ROCm for fills nor
        # CUDA for copies and fills writes it.
        size = args.get("bytes", args.get("size")) if "Mem" in name else None
        self.launches.append(
            Launch(
                self._once(name, name),
                self._once(kernel, kernel),
                start,
                start + duration,
                thread,
                correlation,
                size == "0" or (type(size) is int and size == 0),
            )
        )

    def _take_span(self, event: _Event, name: str, text: bytes) -> None:
        _named_once(event, name, text)
        start, duration = _times(event, text)
        thread = event.pid, event.tid
        if not is_thread(thread):
            raise InputError(complaint(text))
        module, instance = split_module(name)
        self.spans.append(
            Span(
                self._once(module, module),
                instance,
                start,
                start + duration,
                thread,
                event.cat == ANNOTATION,
            )
        )


def _times(event: _Event, text: bytes) -> tuple[int, int]:
    """Start and duration. A negative duration is accepted; a control reports it."""
    try:
        start, duration = nanoseconds(bytes(event.ts)), nanoseconds(bytes(event.dur))
    except InputError as error:
        raise InputError(complaint(text)) from error
    if start < 0:
        raise InputError(complaint(text))
    return start, duration


def _arguments(event: _Event, name: str, text: bytes) -> dict[str, object]:
    """The event's ``args``, after a check for duplicate keys.

    Counting colons is faster than parsing keys: each colon follows a key or is inside a
    string. If the count is exactly that of the keys and the longest strings, no key is
    duplicate; otherwise, or if there is an escape, the text is parsed fully.
    """
    try:
        args = _args(event.args)
    except msgspec.ValidationError as error:
        raise InputError(complaint(text)) from error
    kernel = args.get("kernel")
    colons = _KEYS + len(args) + name.count(":")
    if type(kernel) is str:
        colons += kernel.count(":")
    if text.count(b":") != colons or b"\\" in text:
        loads(text)
    return args


def _named_once(event: _Event, name: str, text: bytes) -> None:
    """The same check for an event whose ``args`` are not read."""
    colons = _KEYS + name.count(":") + bytes(event.args).count(b":")
    if text.count(b":") != colons or b"\\" in text:
        loads(text)
