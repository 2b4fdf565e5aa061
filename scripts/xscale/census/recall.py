"""What a path takes over from the path before it.

Two paths run the same up to the first choice in which they differ. Most of the work is
before that choice, so the values found there are kept.

An expression's value is kept if nothing that it reads can change: no tensor and no
keyword arguments are among it. Any other expression is run again on each path, but for
those of its parts whose values are kept.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache

from xscale.census.values import Named, Tensor, Value, loaded_names


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


def is_settled(node: ast.expr, names: Mapping[str, Value]) -> bool:
    """Whether an expression assigns no name and reads only what cannot change."""
    return not _assigns(node) and all(
        _is_constant(names[name]) for name in loaded_names(node) if name in names
    )


def _is_constant(value: Value) -> bool:
    if isinstance(value, tuple):
        return all(map(_is_constant, value))
    return not isinstance(value, Tensor | Named)


def fresh(value: Value) -> Value:
    """The same with tensors and keyword arguments of its own. What is one object there
    is one object here."""
    return _fresh(value, {})


def _fresh(value: Value, made: dict[int, Value]) -> Value:
    if isinstance(value, tuple):
        return tuple(_fresh(part, made) for part in value)
    if not isinstance(value, Tensor | Named):
        return value
    if id(value) not in made:
        if isinstance(value, Tensor):
            made[id(value)] = replace(value)
        else:
            items = {name: _fresh(item, made) for name, item in value.items.items()}
            made[id(value)] = Named(items, value.opaque)
    return made[id(value)]


@lru_cache(maxsize=4096)
def _assigns(node: ast.expr) -> bool:
    return any(isinstance(part, ast.NamedExpr) for part in ast.walk(node))
