"""What is kept of a trace: GPU work, the calls that launched it, and module spans.

Everything else (Python frames, operators, flow arrows) is nine tenths of a file and
says nothing about which module a kernel belongs to. Times are whole nanoseconds: a
profiler writes microseconds with three decimals, which a float does not always hold.
"""

from __future__ import annotations

import re
from decimal import Decimal, InvalidOperation

import msgspec

from overlaykit.errors import InputError

GPU_CATEGORIES = ("kernel", "gpu_memcpy", "gpu_memset")
RUNTIME_CATEGORIES = ("cuda_runtime", "cuda_driver", "hip_runtime")
_MODULE_PREFIX = "nn.Module: "
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
    device: int | str
    stream: int | str
    correlation: int


class Launch(msgspec.Struct, frozen=True, gc=False):
    """A call that put work on a GPU, or that a capture recorded into a graph.

    ``kernel`` is the kernel's name where the profiler wrote it down (ROCm's does).
    """

    call: str
    kernel: str
    start: int
    end: int
    thread: tuple[int | str, int | str]
    correlation: int

    @property
    def is_graph(self) -> bool:
        return "GraphLaunch" in self.call

    @property
    def is_kernel(self) -> bool:
        """Makes exactly one kernel; a memory call may come to none or several."""
        return "Launch" in self.call and not self.is_graph


class Span(msgspec.Struct, frozen=True, gc=False):
    """One call of an ``nn.Module``, or an annotated range: a class and which one."""

    module: str
    instance: int
    start: int
    end: int
    thread: tuple[int | str, int | str]
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


class _Args(msgspec.Struct, gc=False):
    correlation: int | None = None
    device: int | str | None = None
    stream: int | str | None = None
    kernel: str = ""


class _Event(msgspec.Struct, gc=False):
    ph: str = ""
    cat: str = ""
    name: str = ""
    pid: int | str = 0
    tid: int | str = 0
    ts: msgspec.Raw = msgspec.Raw(b"0")
    dur: msgspec.Raw = msgspec.Raw(b"0")
    args: msgspec.Raw = msgspec.Raw(b"{}")


_event = msgspec.json.Decoder(_Event).decode
_args = msgspec.json.Decoder(_Args).decode


def nanoseconds(raw: bytes) -> int:
    """Exactly, from microseconds as JSON writes them, number or string.

    Raises InputError for what is no time: a word, infinity, beyond any clock.
    """
    whole, _, part = raw.partition(b".")
    digits = whole + part.ljust(3, b"0")
    if len(part) <= 3 and len(digits) <= _DIGITS and digits.isdigit():
        return int(digits)
    try:
        found = Decimal(raw.strip(b' "').decode())
        if found.is_finite() and found.adjusted() < _DIGITS:
            return round(found * 1000)
    except (InvalidOperation, UnicodeDecodeError):
        pass
    raise InputError(f"not a time: {raw[:40].decode(errors='replace')}")


def split_module(name: str) -> tuple[str, int]:
    """``nn.Module: Attention_3`` is the fourth; without a number, the first."""
    stem, _, number = name.removeprefix(_MODULE_PREFIX).rpartition("_")
    if stem and number.isdecimal() and len(number) <= _DIGITS:
        return stem, int(number)
    return name.removeprefix(_MODULE_PREFIX), 0


class Collector:
    """Takes events as JSON texts, in any order, and keeps what a :class:`Trace` holds.

    Both ways of reading a file end here, so they can differ only in finding events.
    """

    def __init__(self) -> None:
        self.work: list[Work] = []
        self.launches: list[Launch] = []
        self.spans: list[Span] = []
        # A model's kernels have few names, and each is long: hold each one once.
        self._names: dict[str, str] = {}

    def take(self, text: bytes | msgspec.Raw) -> None:
        """Raises ``msgspec.DecodeError`` for what is not an event."""
        event = _event(text)
        if event.ph != "X":
            return
        if event.cat in GPU_CATEGORIES:
            self._take_work(event)
        elif event.cat in RUNTIME_CATEGORIES:
            self._take_launch(event)
        elif (annotation := event.cat == "user_annotation") or (
            event.cat == "python_function" and event.name.startswith(_MODULE_PREFIX)
        ):
            module, instance = split_module(event.name)
            start = nanoseconds(bytes(event.ts))
            end = start + nanoseconds(bytes(event.dur))
            name = self._once(module)
            self.spans.append(
                Span(name, instance, start, end, (event.pid, event.tid), annotation)
            )

    def _take_work(self, event: _Event) -> None:
        args = _args(event.args)
        self.work.append(
            Work(
                self._once(event.name),
                self._once(event.cat),
                nanoseconds(bytes(event.ts)),
                nanoseconds(bytes(event.dur)),
                event.pid if args.device is None else args.device,
                event.tid if args.stream is None else args.stream,
                -1 if args.correlation is None else args.correlation,
            )
        )

    def _take_launch(self, event: _Event) -> None:
        if not _LAUNCHES.match(event.name):
            return
        args = _args(event.args)
        start = nanoseconds(bytes(event.ts))
        self.launches.append(
            Launch(
                self._once(event.name),
                self._once(args.kernel),
                start,
                start + nanoseconds(bytes(event.dur)),
                (event.pid, event.tid),
                -1 if args.correlation is None else args.correlation,
            )
        )

    def _once(self, name: str) -> str:
        return self._names.setdefault(name, name)
