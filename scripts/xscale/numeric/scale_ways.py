"""Find the lines that spoil or copy a scale on its way to a reader.

A scale is moved, viewed or copied several times before a GEMM reads it. Each such step
is compared with the one before, as the reader addresses it. A line spoils a scale if
what it leaves is wrong and not what it got, so two lines that each spoil the same scale
are both found. Worker side.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from xscale.numeric.gemms import OutOfBounds, Read, stored
from xscale.numeric.producers import Produced, same_bits
from xscale.numeric.results import Route, Spot
from xscale.numeric.watch import Step, unrecorded


def spoiling_lines(
    read: Read, made: Produced, steps: Iterable[Step]
) -> tuple[Spot, ...]:
    """The lines, in the order in which they ran."""
    found: dict[Spot, None] = {}
    before: list[Any] = []
    with unrecorded():
        for step in _on_the_way_to(read.scale, tuple(steps)):
            if step.tensor.shape != made.truth.shape:
                continue
            seen = _seen(step.tensor, read.route)
            kept = any(same_bits(a, b) for a in seen for b in (*before, made.truth))
            if not kept and step.spot is not None:
                found[step.spot] = None
            before = seen
    return tuple(found)


def copying_lines(read: Read, steps: Iterable[Step]) -> tuple[Spot, ...]:
    """The lines that left the scale in another storage than they got it in."""
    found = [
        step.spot
        for step in _on_the_way_to(read.scale, tuple(steps))
        if step.spot is not None
        and step.source is not None
        and _storage(step.tensor) != _storage(step.source)
    ]
    return tuple(dict.fromkeys(found))


def _storage(tensor: Any) -> int:
    place: int = tensor.untyped_storage().data_ptr()
    return place


def _on_the_way_to(scale: Any, steps: tuple[Step, ...]) -> list[Step]:
    """The steps that led to this tensor: a scale may have other readers beside."""
    found = []
    for step in reversed(steps):
        if step.tensor is scale:
            found.append(step)
            scale = step.source
    return found[::-1]


def _seen(scale: Any, route: Route) -> list[Any]:
    """The scale through its strides, and as CK's bpreshuffle GEMM would read it if that
    is its reader."""
    seen = [scale.clone()]
    if route is Route.BPRESHUFFLE:
        rows, groups = scale.shape
        with suppress(OutOfBounds):
            seen.append(stored(scale, (groups, rows)).t().clone())
    return seen
