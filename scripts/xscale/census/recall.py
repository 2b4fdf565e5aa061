"""What a path takes over from the path before it.

Two paths run the same up to the first choice in which they differ. Most of the work is
before that choice, so the values found there are kept.

An expression's value is kept if nothing that it reads can change: no tensor and no
keyword arguments are among it. Any other expression is run again on each path, but for
those of its parts whose values are kept.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache

from xscale.census.modules import Function, Imported
from xscale.census.values import Named, Tensor, Value, loaded_names

_CHANGING = (Tensor, Named)


@dataclass(frozen=True)
class Kept:
    """An expression's value, the choices made in it, what the path knew afterwards, and
    the place of the next step that is not part of it."""

    value: Value
    decided: tuple[tuple[str, bool], ...]
    state: object
    next: int


@dataclass
class Step:
    """An expression that a path began to run after so many choices. It is run again if
    nothing is kept."""

    node: ast.expr
    since: int
    kept: Kept | None = None


class Steps:
    """The steps of a path in the order in which they began, and the place of the next:
    a step is followed by those of its parts."""

    def __init__(self) -> None:
        self.at = 0
        self._steps: list[Step] = []

    def next(self, node: ast.expr, choices: int) -> Step:
        """The step for an expression that is to be run."""
        if self.at == len(self._steps):
            self._steps.append(Step(node, choices))
        step = self._steps[self.at]
        assert step.node is node
        self.at += 1
        return step

    def start_again(self, choices: int) -> None:
        """From now on, for a path that is the same up to this number of choices."""
        steps, at = self._steps, 0
        while steps and steps[-1].since > choices:
            steps.pop()
        while at < len(steps):
            kept = steps[at].kept
            if kept is None:
                at += 1
            elif steps[at].since + len(kept.decided) <= choices:
                at = kept.next
            else:
                steps[at].kept = None
        self.at = 0


@dataclass
class _Rest:
    """What was run after a meeting place: the answers that were known there, the
    questions that were asked from there on, and the number of paths."""

    known: Mapping[str, bool]
    asked: set[str] = field(default_factory=set)
    paths: int = 0

    def is_same(self, known: Mapping[str, bool]) -> bool:
        return all(known.get(key) == self.known.get(key) for key in self.asked)


class Meetings:
    """What was run after the place where paths meet, by all that it depends on.

    Paths come in an order in which those that are the same up to there follow each
    other.
    """

    def __init__(self) -> None:
        self._rests: dict[object, list[_Rest]] = {}
        self._at: list[bool] = []
        self._rest: _Rest | None = None

    def meet(
        self, taken: Sequence[bool], state: object, known: Mapping[str, bool]
    ) -> int:
        """A path is there. Returns the number of paths that were run from a place like
        it; 0 if it must be run."""
        if self._rest is not None:
            return 0
        rests = self._rests.setdefault(state, [])
        for rest in rests:
            if rest.is_same(known):
                return rest.paths
        self._at, self._rest = [*taken], _Rest(dict(known))
        rests.append(self._rest)
        return 0

    def asks(self, key: str) -> None:
        """A question is asked after the place."""
        if self._rest is not None:
            self._rest.asked.add(key)

    def ended(self, taken: Sequence[bool], script: Sequence[bool]) -> None:
        """A path with these choices has ended, and the next one begins with those."""
        if self._rest is None:
            return
        size = len(self._at)
        if list(taken[:size]) == self._at:
            self._rest.paths += 1
        if list(script[:size]) != self._at:
            self._rest = None


def is_settled(node: ast.expr, names: Mapping[str, Value]) -> bool:
    """Whether an expression assigns no name and reads only what cannot change."""
    reads = _reads(node)
    return reads is not None and all(
        _is_constant(names[name]) for name in reads if name in names
    )


def _is_constant(value: Value) -> bool:
    if isinstance(value, tuple):
        return all(map(_is_constant, value))
    return not isinstance(value, _CHANGING)


def fresh(value: Value) -> Value:
    """The same with tensors and keyword arguments of its own. What is one object there
    is one object here."""
    return _fresh(value, {})


def _fresh(value: Value, made: dict[int, Value]) -> Value:
    if isinstance(value, tuple):
        return tuple(_fresh(part, made) for part in value)
    if not isinstance(value, _CHANGING):
        return value
    if id(value) not in made:
        if isinstance(value, Tensor):
            made[id(value)] = replace(value)
        else:
            items = {name: _fresh(item, made) for name, item in value.items.items()}
            made[id(value)] = Named(items, value.opaque)
    return made[id(value)]


def state_of(*values: Value) -> object:
    """Equal for values that behave the same from here on, together."""
    seen: dict[int, int] = {}
    return tuple(_state_of(value, seen) for value in values)


def _state_of(value: Value, seen: dict[int, int]) -> object:
    if isinstance(value, tuple):
        return tuple(_state_of(part, seen) for part in value)
    if not isinstance(value, _CHANGING):
        if isinstance(value, Function):
            return id(value.node)
        importer = value.importer if isinstance(value, Imported) else ""
        return type(value), repr(value), importer
    if id(value) in seen:
        return seen[id(value)]
    seen[id(value)] = len(seen)
    if isinstance(value, Tensor):
        return value.key
    items = [(name, _state_of(item, seen)) for name, item in value.items.items()]
    return value.opaque, tuple(items)


@lru_cache(maxsize=8192)
def _reads(node: ast.expr) -> frozenset[str] | None:
    """The names that an expression reads; None if it assigns one."""
    assigns = any(isinstance(part, ast.NamedExpr) for part in ast.walk(node))
    return None if assigns else loaded_names(node)
