"""Interleaved timing of several runs, with device events."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Hashable, Mapping
from typing import Any, TypeVar

import torch

Key = TypeVar("Key", bound=Hashable)
_WARM = 3


def interleaved(
    runs: Mapping[Key, Callable[[Callable[[], None], Callable[[], None]], None]],
    rounds: int,
) -> dict[Key, list[float]]:
    """Microseconds per run and round. Each run gets functions that start and stop the
    clock.

    Every round includes each run once, and the first one rotates, so that clock drift
    and cache contents affect all runs equally.
    """
    keys = list(runs)
    events: dict[Key, list[tuple[Any, Any]]] = {key: [] for key in keys}
    for number in range(-_WARM, rounds):
        first = number % len(keys)
        for key in keys[first:] + keys[:first]:
            pair = _event(), _event()
            runs[key](pair[0].record, pair[1].record)
            if number >= 0:
                events[key].append(pair)
    torch.cuda.synchronize()
    return {
        key: [1000 * start.elapsed_time(end) for start, end in pairs]
        for key, pairs in events.items()
    }


def ratio(times: list[float], base: list[float]) -> float:
    """The median over rounds of the ratio of two times in the same round."""
    return statistics.median(a / b for a, b in zip(times, base, strict=True))


def _event() -> Any:
    return torch.cuda.Event(enable_timing=True)
