"""The names that a path starts with, what it records, and how it ends."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from xscale.census.modules import Const, FunctionNode, Module
from xscale.census.values import (
    Arguments,
    Named,
    Symbol,
    Tensor,
    Value,
    stored_names,
)


class PathEnds(Exception):
    """The rest of this path is of no interest."""


class LoopEnds(Exception):
    """``break`` or ``continue``."""


class Returns(Exception):
    """The function returns ``value``."""

    def __init__(self, value: Value) -> None:
        super().__init__()
        self.value = value


@dataclass(frozen=True)
class Use:
    """The state of a scale when it was passed on, to what, and under which conditions.

    The fields are those of :class:`Tensor`. ``by`` names the receiver, ``at`` the file
    and the line. ``known`` holds a consumer's conditions; it is empty for a producer.
    """

    by: str
    transposed: bool | None
    marked: bool | None
    copied: bool
    columns: bool | None
    honest: bool | None
    known: frozenset[tuple[str, bool]] = frozenset()
    at: str = ""


def use_of(
    by: str, scale: Tensor, at: str, known: frozenset[tuple[str, bool]] = frozenset()
) -> Use:
    """The use of a scale that is passed on."""
    columns = False if scale.scrambled else scale.columns
    return Use(
        by,
        scale.transposed,
        scale.marked,
        scale.copied,
        columns,
        scale.honest,
        known,
        at,
    )


@dataclass(frozen=True)
class Method:
    """A tensor's method, to be called."""

    of: Tensor
    name: str


@dataclass
class Frame:
    """A function that is being run, its names, and its class if it is a method."""

    module: Module
    names: dict[str, Value]
    depth: int = 0
    owner: ast.ClassDef | None = None

    def place(self, node: ast.expr | ast.stmt) -> str:
        """Path and line."""
        return f"{self.module.path}:{node.lineno}"


@lru_cache(maxsize=256)
def local_names(function: FunctionNode) -> Mapping[str, Value]:
    """A function's own names, all unknown; they hide those of its module."""
    given = {n.arg for n in ast.walk(function) if isinstance(n, ast.arg)}
    return {name: Symbol(name) for name in given | stored_names(function)}


def _positional(function: FunctionNode) -> list[ast.arg]:
    return [*function.args.posonlyargs, *function.args.args]


def defaults(function: FunctionNode) -> dict[str, Const]:
    """The parameters whose default is a literal."""
    declared, positional = function.args, _positional(function)
    tail = positional[len(positional) - len(declared.defaults) :]
    pairs = [
        *zip(tail, declared.defaults, strict=True),
        *zip(declared.kwonlyargs, declared.kw_defaults, strict=True),
    ]
    return {a.arg: Const(d.value) for a, d in pairs if isinstance(d, ast.Constant)}


def parameters(function: FunctionNode, given: Arguments) -> dict[str, Value]:
    """The values of the parameters, as far as the call determines them."""
    declared, positional = function.args, _positional(function)
    every = {a.arg for a in (*positional, *declared.kwonlyargs)}
    names: dict[str, Value] = {} if given.opaque else {**defaults(function)}
    names |= {a.arg: v for a, v in zip(positional, given.positional, strict=False)}
    names |= {n: v for n, v in given.named.items() if n in every}
    if declared.vararg is not None:
        names[declared.vararg.arg] = tuple(given.positional[len(positional) :])
    if declared.kwarg is not None:
        rest = {n: v for n, v in given.named.items() if n not in every}
        names[declared.kwarg.arg] = Named(rest, given.opaque)
    return names
