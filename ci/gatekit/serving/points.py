"""The points of the benchmark: input length, output length, concurrency.

The caller chooses them by name, or by a gate profile that lists them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import msgspec

from overlaykit.core.documents import from_toml
from overlaykit.core.errors import EnvironmentFailure, Finding, InputError

# As SGLang pull request 24476 measured: lengths are drawn from ratio * length upwards.
RANGE_RATIO = 0.8
PROMPTS_PER_SLOT = 10


class Point(NamedTuple):
    """Lengths in tokens; ``concurrency`` is the maximum number of open requests."""

    isl: int
    osl: int
    concurrency: int

    @property
    def prompts(self) -> int:
        return PROMPTS_PER_SLOT * self.concurrency

    def __str__(self) -> str:
        return f"{self.isl}/{self.osl}/{self.concurrency}"


class _Bench(msgspec.Struct):
    points: tuple[Point, ...]


class _Profile(msgspec.Struct):
    """The part of a gate profile that this benchmark reads."""

    bench: _Bench


def points_of(words: Iterable[str]) -> tuple[Point, ...]:
    """Points from names and profiles. Raises InputError, EnvironmentFailure."""
    found: list[Point] = []
    for word in words:
        found += _of_profile(Path(word)) if word.endswith(".toml") else [parse(word)]
    for point in found:
        if min(point) < 1:
            raise InputError(f"the numbers of a point must be at least 1: {point}")
        if found.count(point) > 1:
            raise InputError(f"--points contains {point} twice")
    return tuple(found)


def parse(text: str) -> Point:
    """``ISL/OSL/CONCURRENCY``. Raises InputError."""
    parts = text.split("/")
    if len(parts) != 3 or not all(re.fullmatch("[0-9]{1,9}", part) for part in parts):
        raise InputError(
            f"a point is ISL/OSL/CONCURRENCY, such as 8192/1024/4, not {text}"
        )
    return Point(*map(int, parts))


def _of_profile(path: Path) -> tuple[Point, ...]:
    try:
        return from_toml(path.read_bytes(), _Profile).bench.points
    except OSError as error:
        step = "give the points: --points ISL/OSL/CONCURRENCY..."
        finding = Finding(str(error), path=str(path), next_step=step)
        raise EnvironmentFailure(f"cannot read {path}", (finding,)) from error
    except ValueError as error:
        finding = Finding(
            str(error),
            path=str(path),
            expected="[bench] with points = [[ISL, OSL, CONCURRENCY], ...]",
        )
        raise InputError(f"{path} contains no points: {error}", (finding,)) from error
