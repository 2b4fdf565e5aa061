"""Answers about one tree that hold for another, where both have the same files.

Releases differ in few files, and a merged tree in those of the series. An answer is
kept with every module that was read for it, and is given again where all of them are
the same.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

from xscale.census.modules import Module, Modules

_MOST_QUESTIONS, _MOST_ANSWERS = 100, 8

T = TypeVar("T")


@dataclass(frozen=True)
class _Answer(Generic[T]):
    """What was found, and the modules (by path) that were read for it."""

    found: T
    read: dict[str, Module | None]

    def holds(self, modules: Modules) -> bool:
        return all(modules.module(path) is one for path, one in self.read.items())


class Shared(Generic[T]):
    """Answers by what was asked; those that were not needed for long are forgotten."""

    def __init__(self) -> None:
        self._known: dict[Hashable, list[_Answer[T]]] = {}

    def get(self, modules: Modules, asked: Hashable, find: Callable[[], T]) -> T:
        """The answer that ``find`` gives, or gave with the same modules."""
        asked = asked, tuple(modules.kernels)
        known = self._known.pop(asked, [])
        answer = next((one for one in known if one.holds(modules)), None)
        if answer is None:
            with modules.noting() as read:
                answer = _Answer(find(), read)
        others = [one for one in known if one is not answer]
        self._known[asked] = [*others, answer][-_MOST_ANSWERS:]
        while len(self._known) > _MOST_QUESTIONS:
            del self._known[next(iter(self._known))]
        return answer.found
