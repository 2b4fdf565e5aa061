"""What is kept of a trace: GPU work, the calls that launched it, and module spans.

Everything else (Python frames, operators, flow arrows) is nine tenths of a file and
says nothing about which module a kernel belongs to. Times are whole nanoseconds: a
profiler writes microseconds with three decimals, which a float does not always hold.

A record that lacks what the judging reads is refused, for a default in its place would
be a reading of its own: :mod:`gatekit.traces.fields` states what each kind must have.
So is one that names a key twice, of which readers of JSON take either.
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

# More than the nanoseconds of any clock have, or the number of any module.
_DIGITS = 24
# What puts work on a GPU; all other calls of a runtime are dropped.
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

    ``kernel`` is the kernel's name where the profiler wrote it down (ROCm's does), and
    ``empty`` says that it wrote down of a memory call that it moves 0 bytes.
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
        """Makes exactly one kernel; a memory call may come to none or several."""
        return "Launch" in self.call and not self.is_graph

    @property
    def is_fill(self) -> bool:
        """A memset: whatever became of it, it is no copy."""
        return "Memset" in self.call and "Memcpy" not in self.call


class Span(msgspec.Struct, frozen=True, gc=False):
    """One call of an ``nn.Module``, or an annotated range: a class and which one."""

    module: str
    instance: int
    start: int
    end: int
    thread: tuple[int | str, int]
    annotation: bool


class Trace(msgspec.Struct, frozen=True, gc=False):
    """One file, read. ``layout`` is the path it was read by."""

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
    """Any event. What is missing is seen when the event turns out to be kept."""

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
# The keys of an event of the profiler's, and with them the colons outside of strings.
_KEYS = len(msgspec.structs.fields(_Event))


def nanoseconds(raw: bytes) -> int:
    """Exactly, from microseconds as JSON writes numbers.

    Raises InputError for what is no time: nothing, a word, beyond any clock.
    """
    if raw[-4:-3] == b".":  # As the profiler writes them.
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
    """``nn.Module: Attention_3`` is the fourth; without a number, the first."""
    stem, _, number = name.removeprefix(MODULE_PREFIX).rpartition("_")
    if stem and number.isdecimal() and len(number) <= _DIGITS:
        return stem, int(number)
    return name.removeprefix(MODULE_PREFIX), 0


class Collector:
    """Takes events as JSON texts, in any order, and keeps what a :class:`Trace` holds.

    Both ways of reading a file end here, so they can differ only in finding events.
    """

    def __init__(self) -> None:
        self.work: list[Work] = []
        self.launches: list[Launch] = []
        self.spans: list[Span] = []
        self.legacy = 0
        # A model's kernels have few names, and each is long: hold each one once.
        self._once = dict[str, str]().setdefault

    def take(self, text: bytes | msgspec.Raw) -> None:
        """Raises ``msgspec.DecodeError`` for what is not an event, and InputError for
        one that lacks what is read of its kind."""
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
        # As ROCm writes it down of a copy, under one name or the other; of a fill, and
        # CUDA of either, nothing.
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
    """Start and duration. One may end before it starts, which a control reports."""
    try:
        start, duration = nanoseconds(bytes(event.ts)), nanoseconds(bytes(event.dur))
    except InputError as error:
        raise InputError(complaint(text)) from error
    if start < 0:
        raise InputError(complaint(text))
    return start, duration


def _arguments(event: _Event, name: str, text: bytes) -> dict[str, object]:
    """The event's ``args``, once it is known that no key is there twice.

    Colons are faster told than keys: each is one key's, or stands in a string. As many
    as the keys and the longest strings have are all accounted for; any other number, or
    an escape, is looked at closely.
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
    """The same of an event of whose ``args`` nothing is read."""
    colons = _KEYS + name.count(":") + bytes(event.args).count(b":")
    if text.count(b":") != colons or b"\\" in text:
        loads(text)
