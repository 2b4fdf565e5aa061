"""What a path through a function records, and how it ends."""

from __future__ import annotations

import ast
from collections.abc import Collection
from dataclasses import dataclass, field

from xscale.census.modules import Function, Module
from xscale.census.values import Layer, Tensor, Value


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


@dataclass
class Layers:
    """Projections by attribute name, and the attributes that they have and lack.

    ``asked`` collects the attributes that paths test, with their projections;
    ``predicates`` collects the tree's functions that test them.
    """

    projections: Collection[str]
    has: Collection[str]
    has_not: Collection[str]
    asked: set[tuple[str, str]] = field(default_factory=set)
    predicates: set[str] = field(default_factory=set)

    def get(self, layer: Layer, name: str) -> bool | None:
        """Whether a projection has an attribute; None if unknown."""
        self.asked.add((layer.text.rpartition(".")[2], name))
        return True if name in self.has else False if name in self.has_not else None

    def record_call(self, callee: Value, given: Collection[Value]) -> None:
        """Record a call that receives projections. Its tests are unknown unless the
        function is in the tree."""
        if isinstance(callee, Function):
            place = f"{callee.module.path}:{callee.node.lineno}"
            self.predicates.add(f"{callee.name} ({place})")
        else:
            self.asked |= {(repr(v), repr(callee)) for v in given if type(v) is Layer}


@dataclass
class Frame:
    """A function that is being run, its names, and its class if it is a method."""

    module: Module
    names: dict[str, Value]
    depth: int = 0
    owner: ast.ClassDef | None = None
