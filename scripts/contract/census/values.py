"""What the interpreter knows of a value: mostly nothing, of a scale what matters."""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeAlias

from contract.census.modules import Const, Function, FunctionNode, Imported, Kernel
from contract.sites import PRODUCERS, RMS

_TURNS = {"transpose", "t", "T", "mT", "permute", "swapaxes", "swapdims"}
_VIEWS = {"view", "reshape", "as_strided", "view_as", "detach", "clone"}


@dataclass(frozen=True)
class Symbol:
    """A value that the source leaves open; equal texts are equal values."""

    text: str
    negated: bool = False

    def __repr__(self) -> str:
        return f"not {self.text}" if self.negated else self.text


@dataclass(eq=False)
class Tensor:
    """One tensor object; views of it are others and lose the marker.

    ``transposed``: its kernel was asked for (groups, M) bytes; None where the source
    does not tell, as in ``marked``. ``turned``: this view swaps the dimensions, so
    ``contiguous`` copies the bytes into the other order. ``ours``: this is the scale
    made by the call, or given as the parameter, that is followed.
    """

    name: str
    ours: bool
    transposed: bool | None
    marked: bool | None = False
    copied: bool = False
    turned: bool = False

    def __repr__(self) -> str:
        return self.name

    def derived(self, how: str) -> Value:
        """What a tensor method or attribute makes of it."""
        name = f"{self.name}.{how}"
        transposed, copied, turned = self.transposed, self.copied, self.turned
        if how in _TURNS:
            turned = not turned
        elif how in _VIEWS:
            turned = False
        elif how == "contiguous" and turned:
            copied = True
        elif how == "contiguous" and transposed:
            transposed = None
        elif how == "contiguous":
            return self
        else:
            if how.endswith("_"):
                self.transposed = None
            return Symbol(name)
        return Tensor(name, self.ours, transposed, False, copied, turned)


@dataclass(eq=False)
class Named:
    """Keyword arguments on their way through ``**kwargs``."""

    items: dict[str, Value]
    opaque: bool = False


Value: TypeAlias = (
    "Symbol | Tensor | Named | Const | Kernel | Function | Imported | tuple[Value, ...]"
)
NONE = Const(None)


@dataclass
class Arguments:
    """A call's arguments; ``opaque`` where others may come by ``*`` or ``**``."""

    positional: list[Value]
    named: dict[str, Value]
    opaque: bool

    def all(self) -> tuple[Value, ...]:
        return (*self.positional, *self.named.values())


def scales_in(value: Value) -> list[Tensor]:
    """The scales in a value that are followed."""
    if isinstance(value, Tensor):
        return [value] if value.ours else []
    if isinstance(value, Named):
        return scales_in(tuple(value.items.values()))
    return [s for v in value for s in scales_in(v)] if isinstance(value, tuple) else []


def output_of(kernel: str, scale: Tensor) -> Value:
    """What the kernel returns: ((q, scale), bf16, second, residual), or the pair."""
    pair = (Tensor(f"q of {scale}", ours=False, transposed=None), scale)
    if kernel != RMS:
        return pair
    rest = ("unquantized", "second output", "residual")
    return (pair, *(Symbol(f"{name} of {scale}") for name in rest))


def producer_among(values: Sequence[Value]) -> str | None:
    """The producing kernel that is handed on as a value."""
    for value in values:
        if isinstance(value, Kernel) and value.name in PRODUCERS:
            return value.name
    return None


def unpack(targets: Sequence[ast.expr], value: Value) -> Sequence[Value]:
    """One value per target of ``a, *b = value``."""
    starred = [isinstance(t, ast.Starred) for t in targets]
    if isinstance(value, tuple):
        if True in starred:
            head = starred.index(True)
            end = len(value) - (len(targets) - head - 1)
            if end >= head:
                return (*value[:head], value[head:end], *value[end:])
        elif len(value) == len(targets):
            return value
    return [Symbol(f"{value!r}[{i}]") for i in range(len(targets))]


def sliced(value: tuple[Value, ...], part: ast.Slice) -> Value:
    """``value[a:b]`` with bounds that the source states; else unknown."""
    bounds = [_bound(node) for node in (part.lower, part.upper, part.step)]
    if any(isinstance(bound, str) for bound in bounds):
        return Symbol(f"{value!r}[{ast.unparse(part)}]")
    return value[slice(*bounds)]


def _bound(node: ast.expr | None) -> Any:
    """A slice's bound; its text where it is no literal."""
    if node is None or isinstance(node, ast.Constant):
        return node and node.value
    return ast.unparse(node)


def compare(left: Value, op: ast.cmpop, right: Value) -> Value:
    negated = isinstance(op, ast.IsNot | ast.NotEq)
    if isinstance(op, ast.Is | ast.IsNot | ast.Eq | ast.NotEq):
        if isinstance(left, Const) and isinstance(right, Const):
            return Const((left == right) != negated)
        if right == NONE and isinstance(left, Tensor | tuple | Kernel | Function):
            return Const(negated)
        kind = "is" if isinstance(op, ast.Is | ast.IsNot) else "=="
        return Symbol(f"({left!r} {kind} {right!r})", negated)
    return Symbol(f"({left!r} {type(op).__name__} {right!r})")


@lru_cache(maxsize=1024)
def stored_names(node: ast.AST) -> frozenset[str]:
    """The names that are assigned somewhere in ``node``."""
    return frozenset(
        n.id
        for n in ast.walk(node)
        if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)
    )


@lru_cache(maxsize=1024)
def loaded_names(node: ast.AST) -> frozenset[str]:
    """The names that are read somewhere in ``node``."""
    return frozenset(
        n.id
        for n in ast.walk(node)
        if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)
    )


@lru_cache(maxsize=256)
def local_names(function: FunctionNode) -> Mapping[str, Value]:
    """A function's own names, all open: they hide those of its module."""
    given = {n.arg for n in ast.walk(function) if isinstance(n, ast.arg)}
    return {name: Symbol(name) for name in given | stored_names(function)}


def parameters(function: FunctionNode, given: Arguments) -> dict[str, Value]:
    """What the parameters are bound to, as far as the call tells."""
    declared = function.args
    positional = [*declared.posonlyargs, *declared.args]
    every = {a.arg for a in (*positional, *declared.kwonlyargs)}
    names: dict[str, Value] = {}
    if not given.opaque:
        defaults = [
            *zip(reversed(positional), reversed(declared.defaults), strict=False),
            *zip(declared.kwonlyargs, declared.kw_defaults, strict=True),
        ]
        for arg, default in defaults:
            if isinstance(default, ast.Constant):
                names[arg.arg] = Const(default.value)
    names |= {a.arg: v for a, v in zip(positional, given.positional, strict=False)}
    names |= {n: v for n, v in given.named.items() if n in every}
    if declared.vararg is not None:
        names[declared.vararg.arg] = tuple(given.positional[len(positional) :])
    if declared.kwarg is not None:
        rest = {n: v for n, v in given.named.items() if n not in every}
        names[declared.kwarg.arg] = Named(rest, given.opaque)
    return names
