"""Records what a run does to a scale besides reading it. Worker side.

The source is not searched. While the tree's own code runs, every PyTorch operation,
every assignment of the mark and every call of a stub (code that the proof does not
have) is recorded.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from types import FrameType, FunctionType, ModuleType
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from xscale.numeric.compiler import without_import
from xscale.numeric.results import Spot
from xscale.numeric.stubs import Anything, recording_calls
from xscale.sites import MARKER

DOUBLE = "numeric::double"
"""Label in a profile for work that is not the tree's own."""

_FP8 = (torch.float8_e4m3fn, torch.float8_e4m3fnuz)
_OPAQUE = (type, ModuleType, FunctionType, Anything)
_DEPTH = 2
_depth = 0


@contextmanager
def unrecorded() -> Iterator[None]:
    """Run work that is not the tree's own without recording it."""
    global _depth
    _depth += 1
    try:
        with torch.profiler.record_function(DOUBLE):
            yield
    finally:
        _depth -= 1


def is_unrecorded() -> bool:
    return _depth > 0


@dataclass(frozen=True)
class Event:
    """An operation on a kernel's output; ``made`` is its Produced, if known."""

    what: str
    where: str
    made: Any = None


@dataclass(frozen=True)
class Mark:
    """One setting of the mark. ``by_requester`` says whether the call that requested
    the transposed scale was still running."""

    tensor: Any
    made: Any
    by_requester: bool
    where: str


@dataclass(frozen=True)
class Step:
    """A scale as one line of the tree left it: ``made``, the Produced, is what a kernel
    wrote or a gather built there. ``source`` is the tensor that the line got it from;
    None if it was built there."""

    spot: Spot | None
    tensor: Any
    made: Any
    source: Any = None


@dataclass
class Watched:
    """Everything recorded in one run.

    ``relayouts`` are copies of a scale, ``writes`` are operations that overwrite a
    kernel's output, ``quantizations`` are fp8 tensors that the tree's own operations
    made from other types, ``stub_calls`` are calls of stubs that received a scale or
    its fp8 values, and ``cleared`` are marks that were lost. ``steps`` are all tensors
    that held a scale, in order.
    """

    relayouts: list[Event] = field(default_factory=list)
    writes: list[Event] = field(default_factory=list)
    quantizations: list[Event] = field(default_factory=list)
    stub_calls: list[Event] = field(default_factory=list)
    marks: list[Mark] = field(default_factory=list)
    cleared: list[Event] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)


class Watch(TorchDispatchMode):  # type: ignore[misc]
    """Records the operations of one run and tracks the storages that kernels wrote."""

    def __init__(self, tree: str) -> None:
        super().__init__()
        self._tree = f"{tree}/"
        self.forget()

    def forget(self) -> None:
        """Discard all records."""
        self.seen = Watched()
        self._scales: dict[int, Any] = {}
        self._values: dict[int, Any] = {}
        self._copies: dict[int, Any] = {}
        self._requesters: dict[int, FrameType] = {}
        self._kept: list[Any] = []

    def produced(self, made: Any, requester: FrameType | None) -> None:
        """A kernel wrote this Produced; ``requester`` requested a transposed scale."""
        if (place := _storage(made.scale)) != 0:
            self._scales[place] = made
            self.seen.steps.append(Step(self.spot(), made.scale, made))
            if requester is not None:
                self._requesters[place] = requester
        if (place := _storage(made.q)) != 0:
            self._values[place] = made

    def knows_mark_on(self, tensor: Any) -> bool:
        """Whether setting its mark was recorded."""
        return any(mark.tensor is tensor for mark in self.seen.marks)

    def finish(self) -> Watched:
        """The run is over: marked tensors should still be marked."""
        cleared = {id(event.made) for event in self.seen.cleared}
        self.seen.cleared += [
            Event("it was set", mark.where, mark.made)
            for mark in self.seen.marks
            if not getattr(mark.tensor, MARKER, False) and id(mark.made) not in cleared
        ]
        self._requesters.clear()
        return self.seen

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if is_unrecorded():
            return func(*args, **kwargs)
        # Before it runs, because an operation may replace a tensor's storage.
        given = [(one, _storage(one)) for one in tensors((args, kwargs))]
        written = _written(func, args, kwargs)
        outputs = func(*args, **kwargs)
        self._look(str(func), given, written, outputs)
        return outputs

    def _look(
        self, what: str, given: list[tuple[Any, int]], written: list[Any], outputs: Any
    ) -> None:
        ids = {id(one) for one in written}
        sources = [(one, at) for one, at in given if id(one) not in ids]
        for one, at in given:
            wrote = self._wrote(at)
            if id(one) in ids and wrote is not None:
                self.seen.writes.append(Event(what, self.where(), wrote))
        made = [*tensors(outputs), *written]
        at_sources = {at for _, at in sources}
        fresh = [one for one in made if _storage(one) not in at_sources]
        self._look_at_fresh(what, fresh, sources)
        for one in made:
            at = _storage(one)
            if wrote := self._scale_in(at):
                source = next((s for s, at in sources if self._scale_in(at)), None)
                self.seen.steps.append(Step(self.spot(), one, wrote, source))

    def _scale_in(self, storage: int) -> Any:
        """The scale that this storage holds, or a copy of it."""
        return self._scales.get(storage, self._copies.get(storage))

    def _look_at_fresh(
        self, what: str, fresh: list[Any], sources: list[tuple[Any, int]]
    ) -> None:
        """Look at the tensors that an operation made in storages of their own."""
        for one in fresh:
            copied = self._scale_copied(one, sources)
            if copied is not None:
                self.seen.relayouts.append(Event(what, self.where(), copied))
                self._kept.append(one)
                self._copies[_storage(one)] = copied
                return
            if one.dtype in _FP8 and sources and not _any_fp8(sources):
                self.seen.quantizations.append(Event(what, self.where()))
                return

    def _scale_copied(self, made: Any, sources: list[tuple[Any, int]]) -> Any:
        """The scale that ``made`` is a copy of: about as many values, of the same
        width."""
        if made.element_size() != 4:
            return None
        for source, at in sources:
            less, more = sorted((made.numel(), source.numel()))
            wrote = self._scale_in(at)
            if wrote is not None and more <= 2 * less:
                return wrote
        return None

    def _wrote(self, storage: int) -> Any:
        """The kernel output in that storage: a scale or the fp8 values; None if
        neither."""
        return self._scales.get(storage, self._values.get(storage))

    def where(self) -> str:
        """The innermost line of the tree's own code that is running."""
        return str(self.spot() or "nowhere in the tree")

    def spot(self) -> Spot | None:
        """That line, with the one that called its function."""
        frame: FrameType | None = sys._getframe(1)
        found: list[tuple[str, int, str]] = []
        while frame is not None and len(found) <= 1:
            code = frame.f_code
            if code.co_filename.startswith(self._tree):
                path = code.co_filename.removeprefix(self._tree)
                found.append((path, frame.f_lineno, code.co_name))
            frame = frame.f_back
        if not found:
            return None
        caller = f"{found[1][0]}:{found[1][1]}" if len(found) > 1 else ""
        return Spot(*found[0], caller)

    def marked(self, tensor: Any, on: bool) -> None:
        """The mark is being set, or cleared, on a tensor."""
        if is_unrecorded():
            return
        place = _storage(tensor)
        made = self._scales.get(place)
        if on:
            by_requester = _runs(self._requesters.get(place))
            self.seen.marks.append(Mark(tensor, made, by_requester, self.where()))
        else:
            self.seen.cleared.append(Event("it is cleared", self.where(), made))

    def stub_called(
        self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        """A stub is being called."""
        if is_unrecorded() or not self._scales:
            return
        for one in _held((args, kwargs), _DEPTH):
            wrote = self._wrote(_storage(one))
            if wrote is not None:
                self.seen.stub_calls.append(Event(name, self.where(), wrote))
                return


without_import(Watch)


@contextmanager
def watching(watch: Watch) -> Iterator[None]:
    """Record everything in this block with ``watch``."""

    def set_attribute(tensor: Any, name: str, value: Any) -> None:
        object.__setattr__(tensor, name, value)
        if name == MARKER:
            watch.marked(tensor, bool(value))

    def delete_attribute(tensor: Any, name: str) -> None:
        object.__delattr__(tensor, name)
        if name == MARKER:
            watch.marked(tensor, False)

    tensor_class: Any = torch.Tensor
    tensor_class.__setattr__ = set_attribute
    tensor_class.__delattr__ = delete_attribute
    try:
        with watch, recording_calls(watch.stub_called):
            yield
    finally:
        del tensor_class.__setattr__, tensor_class.__delattr__


def tensors(value: Any) -> Iterator[Any]:
    """The tensors in nested tuples, lists and mappings, in order."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, (tuple, list)):
        for one in value:
            yield from tensors(one)
    elif isinstance(value, dict):
        yield from tensors(list(value.values()))


def _held(value: Any, depth: int) -> Iterator[Any]:
    """The tensors in a value, in its attributes and in theirs."""
    if isinstance(value, (tuple, list)):
        for one in value:
            yield from _held(one, depth)
    elif isinstance(value, dict):
        yield from _held(list(value.values()), depth)
    elif isinstance(value, torch.Tensor):
        yield value
    elif depth and hasattr(value, "__dict__") and not isinstance(value, _OPAQUE):
        yield from _held(list(vars(value).values()), depth - 1)


def _storage(tensor: Any) -> int:
    """The address of its storage; 0 if it has none."""
    if tensor.device.type == "meta":
        return 0
    place: int = tensor.untyped_storage().data_ptr()
    return place


def _written(func: Any, args: Any, kwargs: Any) -> list[Any]:
    """The tensors that an operation writes into, by its schema."""
    positions, names = _writes_of(func)
    found = [args[position] for position in positions if position < len(args)]
    found += [kwargs[name] for name in names if name in kwargs]
    return list(tensors(found))


@lru_cache(maxsize=1024)
def _writes_of(func: Any) -> tuple[tuple[int, ...], tuple[str, ...]]:
    written = [
        (position, argument.name)
        for position, argument in enumerate(func._schema.arguments)
        if argument.alias_info is not None and argument.alias_info.is_write
    ]
    return tuple(p for p, _ in written), tuple(n for _, n in written)


def _any_fp8(sources: list[tuple[Any, int]]) -> bool:
    return any(one.dtype in _FP8 for one, _ in sources)


def _runs(requester: FrameType | None) -> bool:
    """Whether that call is still running."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if frame is requester:
            return True
        frame = frame.f_back
    return False
