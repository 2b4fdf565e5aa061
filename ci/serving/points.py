"""The points of the benchmark: input length, output length, concurrency."""

from __future__ import annotations

from typing import NamedTuple

from overlaykit.errors import InputError

# As SGLang pull request 24476 measured: lengths are drawn from ratio * length upwards.
RANGE_RATIO = 0.8
PROMPTS_PER_SLOT = 10


class Point(NamedTuple):
    """Lengths in tokens; ``concurrency`` is the greatest number of open requests."""

    isl: int
    osl: int
    concurrency: int

    @property
    def prompts(self) -> int:
        return PROMPTS_PER_SLOT * self.concurrency

    def __str__(self) -> str:
        return f"{self.isl}/{self.osl}/{self.concurrency}"


# The pull request names both input lengths, the output length and, in the name of its
# trace, concurrency 4; its other concurrencies are not public. These are this
# repository's choice, and every run can name others.
TEN = tuple(Point(isl, 1024, c) for isl in (8192, 1024) for c in (4, 8, 16, 32, 64))


def parse(text: str) -> Point:
    """``ISL/OSL/CONCURRENCY``. Raises InputError."""
    parts = text.split("/")
    if len(parts) != 3 or not all(p.isascii() and p.isdigit() for p in parts):
        raise InputError(f"a point is ISL/OSL/CONCURRENCY, as 8192/1024/4, not {text}")
    point = Point(*map(int, parts))
    if min(point) < 1:
        raise InputError(f"a point's numbers are at least 1: {text}")
    return point
