"""What the watch records, one event at a time."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

torch: Any = pytest.importorskip("torch", reason="scales are PyTorch's tensors")

from xscale.numeric.producers import Produced  # noqa: E402
from xscale.numeric.stubs import Anything  # noqa: E402
from xscale.numeric.watch import Watch, unrecorded, watching  # noqa: E402
from xscale.sites import MARKER  # noqa: E402


def produced(asked: bool = True) -> Produced:
    scale = torch.rand(4, 3).t()
    q = torch.rand(3, 512).to(torch.float8_e4m3fn)
    return Produced("kernel", q, scale, scale.contiguous(), True, asked)


def watched(event: Callable[[Produced], object], asked: bool = True) -> Any:
    """The record of an event, after the call that requested the scale has returned."""
    watch, one = Watch("tree"), produced(asked)
    with watching(watch):
        watch.produced(one, None)
        event(one)
    return watch.finish()


@pytest.mark.parametrize(
    "copy",
    [
        lambda s: s.clone(),
        lambda s: s.contiguous(),
        lambda s: s.t().contiguous().t().contiguous(),
        lambda s: torch.cat([s]),
        lambda s: torch.stack([s]),
        lambda s: s[torch.arange(3)],
        lambda s: s.reshape(-1),
        lambda s: torch.empty(3, 4).copy_(s),
        lambda s: s * 1.0,
        lambda s: s.flatten()[:9].clone(),
    ],
)
def test_copies(copy: Callable[[Any], Any]) -> None:
    """Any operation that changes a scale's layout, and a copy of a copy."""
    assert watched(lambda one: copy(one.scale)).relayouts


@pytest.mark.parametrize(
    "look",
    [
        lambda s: s.t(),
        lambda s: s.as_strided((4, 3), (3, 1)),
        lambda s: s[:2],
        lambda s: s.view(torch.int32) == s.view(torch.int32),
        lambda s: s.sum(),
        lambda s: torch.rand(3, 4, 128).mul_(s.unsqueeze(-1)),
    ],
)
def test_reading_is_not_a_copy(look: Callable[[Any], Any]) -> None:
    seen = watched(lambda one: look(one.scale))
    assert not seen.relayouts and not seen.writes


def test_unrecorded_work_is_not_recorded() -> None:
    def event(one: Produced) -> None:
        with unrecorded():
            one.scale.clone().copy_(one.scale)
            one.scale.mul_(1)
            setattr(one.scale, MARKER, True)
            Anything("stub")(one.scale)

    seen = watched(event)
    assert not any((seen.relayouts, seen.writes, seen.marks, seen.stub_calls))


@pytest.mark.parametrize(
    "write",
    [
        lambda one: one.scale.mul_(1),
        lambda one: one.scale.t()[0].zero_(),
        lambda one: one.q.view(torch.uint8).add_(0),
        lambda one: torch.mul(one.scale, 1, out=one.scale),
        lambda one: one.scale.set_(torch.rand(3, 4)),
    ],
)
def test_writes(write: Callable[[Produced], Any]) -> None:
    assert watched(write).writes


@pytest.mark.parametrize(
    "quantize",
    [
        lambda x: x.to(torch.float8_e4m3fn),
        lambda x: torch.empty(3, 8, dtype=torch.float8_e4m3fn).copy_(x),
    ],
)
def test_quantizations(quantize: Callable[[Any], Any]) -> None:
    assert watched(lambda _: quantize(torch.rand(3, 8))).quantizations


def test_stubs_that_receive_a_scale() -> None:
    """As an argument, in a container, and in an object's attribute."""

    class Holder:
        def __init__(self, held: object) -> None:
            self.held = held

    def hand(given: Callable[[Produced], Any], one: Produced) -> None:
        Anything("a.stub")(1, x=given(one))

    ways: tuple[Callable[[Produced], Any], ...] = (
        lambda one: one.scale[:1],
        lambda one: (one.q, 1),
        lambda one: {"x": [one.scale]},
        lambda one: Holder(Holder((one.scale,))),
    )
    for given in ways:
        seen = watched(partial(hand, given))
        assert [event.what for event in seen.stub_calls] == ["a.stub"]
    assert not watched(lambda _: Anything("a.stub")(torch.rand(3))).stub_calls


def test_marks_and_who_sets_them() -> None:
    def ask(watch: Watch, one: Produced, by: Callable[[Any], None]) -> None:
        import sys

        watch.produced(one, sys._getframe())
        by(one.scale)

    def mark(scale: Any) -> None:
        setattr(scale, MARKER, True)

    watch, one = Watch("tree"), produced()
    with watching(watch):
        ask(watch, one, mark)
        mark(one.scale[:])
        assert watch.knows_mark_on(one.scale)
    first, second = watch.finish().marks
    assert (first.by_requester, second.by_requester) == (True, False)
    assert first.made is one is second.made


@pytest.mark.parametrize(
    "clear",
    [
        lambda s: delattr(s, MARKER),
        lambda s: setattr(s, MARKER, False),
        lambda s: s.__dict__.clear(),
        lambda s: s.__dict__.pop(MARKER),
        lambda s: object.__delattr__(s, MARKER),
    ],
)
def test_marks_that_are_lost(clear: Callable[[Any], Any]) -> None:
    def event(one: Produced) -> None:
        setattr(one.scale, MARKER, True)
        clear(one.scale)

    assert len(watched(event).cleared) == 1


@pytest.mark.parametrize(
    "mark",
    [
        lambda s: s.__dict__.update({MARKER: True}),
        lambda s: object.__setattr__(s, MARKER, True),
    ],
)
def test_marks_without_setattr_are_unknown(mark: Callable[[Any], Any]) -> None:
    watch, one = Watch("tree"), produced()
    with watching(watch):
        watch.produced(one, None)
        mark(one.scale)
        assert getattr(one.scale, MARKER) and not watch.knows_mark_on(one.scale)


def test_the_tensor_class_is_restored() -> None:
    before = torch.Tensor.__setattr__, torch.Tensor.__delattr__
    watched(lambda one: setattr(one.scale, MARKER, True))
    assert (torch.Tensor.__setattr__, torch.Tensor.__delattr__) == before
    tensor = torch.rand(2)
    tensor.anything = 1
    del tensor.anything
    assert tensor.requires_grad_().requires_grad
