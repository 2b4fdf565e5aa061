"""Values of the interpreter: mostly unknown, but detailed for a scale."""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence
from dataclasses import astuple, dataclass, replace
from functools import lru_cache
from typing import Any, TypeAlias

from xscale.census.modules import Const, Function, Imported, Kernel
from xscale.sites import ALL_REDUCE, QUANTIZATIONS, RMS

_EXCHANGES = {"t", "T", "mT"}
_TURNS = {*_EXCHANGES, "transpose", "permute", "swapaxes", "swapdims"}
_SAME = {"detach", "clone"}
_DTYPE = re.compile(r"torch\.(u?int|b?float)\d+\w*")


@dataclass(frozen=True)
class Symbol:
    """An unknown value; equal texts are equal values."""

    text: str
    negated: bool = False

    def __repr__(self) -> str:
        return f"not {self.text}" if self.negated else self.text


ROWS, GROUPS = Symbol("rows of the scale"), Symbol("groups of the scale")


@dataclass(eq=False)
class Tensor:
    """One tensor object; its views are other objects and lose the marker.

    A scale is a matrix of (M, groups). ``columns``: its bytes lie in (groups, M) order.
    ``by_columns``: the strides of this view address them in that order. If the two
    agree, the strides are honest; None means unknown. ``scrambled``: the bytes lie in
    neither order, because they were copied by strides that were not honest. ``turned``:
    the view is (groups, M). ``transposed``: the kernel was asked for (groups, M) bytes.
    ``copied``: an expression copied row-major bytes into the other order. ``ours``: it
    is the scale that is followed, made by the call or given as the parameter.
    """

    name: str
    ours: bool
    transposed: bool | None
    columns: bool | None = None
    by_columns: bool | None = None
    marked: bool | None = False
    copied: bool = False
    turned: bool = False
    scrambled: bool = False

    def __repr__(self) -> str:
        return self.name

    @property
    def honest(self) -> bool | None:
        """Whether the strides address the bytes in their actual order."""
        if self.scrambled:
            return False
        unknown = self.columns is None or self.by_columns is None
        return None if unknown else self.columns == self.by_columns

    @property
    def key(self) -> tuple[object, ...]:
        """Equal for tensors that cannot be distinguished here."""
        return astuple(self)

    def derived(self, how: str, given: Sequence[Value] = ()) -> Value:
        """The result of a tensor method with arguments ``given``, or of an
        attribute."""
        known = self._known_attribute(how)
        if how == "size" and len(given) == 1 and given[0] in (Const(0), Const(1)):
            return (GROUPS, ROWS)[(given[0] == Const(0)) is not self.turned]
        if known is not None:
            return known
        new = replace(self, name=f"{self.name}.{how}", marked=False)
        if how in _TURNS:
            exchanges = _exchanges(how, given)
            new.turned ^= exchanges is True
            return Symbol(new.name) if exchanges is None else new
        if how == "contiguous":
            return self._contiguous(new)
        if how in ("view", "reshape"):
            new._reshape(given, may_copy=how == "reshape")
        elif how == "as_strided":
            new._restride(given)
        elif how not in _SAME:
            if how.endswith("_"):
                self.columns = None
            return Symbol(new.name)
        return new

    def _known_attribute(self, how: str) -> Value | None:
        """An attribute that is known for every scale or for this one; kernels write
        float32."""
        if how in ("dim", "ndim"):
            return Const(2)
        if how == "dtype":
            return Imported("", (("torch", "float32"),))
        if how == "shape":
            return (GROUPS, ROWS) if self.turned else (ROWS, GROUPS)
        if how == "is_contiguous" and self.by_columns is not None:
            return Const(self.by_columns == self.turned)
        return None

    def _contiguous(self, new: Tensor) -> Tensor:
        """Copies if strides and view disagree; the copy has the values that the view
        shows."""
        new.copied |= self.turned
        if self.by_columns == self.turned:
            return new if new.copied != self.copied else self
        new.scrambled = self.honest is False
        new.columns = self.turned if self.honest else None
        new.by_columns = None if self.by_columns is None else self.turned
        return new

    def _reshape(self, given: Sequence[Value], may_copy: bool) -> None:
        if may_copy and self.by_columns != self.turned:
            copy = self._contiguous(replace(self))
            self.columns, self.by_columns = copy.columns, copy.by_columns
            self.scrambled = copy.scrambled
        shape = given[0] if len(given) == 1 else tuple(given)
        is_view = self.by_columns == self.turned
        self.turned = shape == (GROUPS, ROWS)
        known = is_view and shape in ((ROWS, GROUPS), (GROUPS, ROWS))
        self.by_columns = self.turned if known else None

    def _restride(self, given: Sequence[Value]) -> None:
        """``as_strided(shape, strides)``; unusual arguments give unknown strides."""
        along_bytes = {(Const(1), ROWS): True, (GROUPS, Const(1)): False}
        self.turned = False
        is_known = len(given) == 2 and given[0] == (ROWS, GROUPS)
        strides = given[1] if is_known and isinstance(given[1], tuple) else ()
        self.by_columns = next(
            (v for k, v in along_bytes.items() if k == strides), None
        )


@dataclass(eq=False)
class Named:
    """Keyword arguments passed through ``**kwargs``."""

    items: dict[str, Value]
    opaque: bool = False


Value: TypeAlias = (
    "Symbol | Tensor | Named | Const | Kernel | Function | Imported | tuple[Value, ...]"
)
NONE = Const(None)


@dataclass
class Arguments:
    """A call's arguments; ``opaque`` if ``*`` or ``**`` may add others."""

    positional: list[Value]
    named: dict[str, Value]
    opaque: bool

    def all(self) -> tuple[Value, ...]:
        return (*self.positional, *self.named.values())


def _exchanges(how: str, given: Sequence[Value]) -> bool | None:
    """Whether a view exchanges the two dimensions; None if it may or may not."""
    if how in _EXCHANGES:
        return True
    dims = given[0] if len(given) == 1 and isinstance(given[0], tuple) else given
    axes = [i % 2 for dim in dims for i in (-2, -1, 0, 1) if dim == Const(i)]
    if len(axes) != 2 or len(dims) != 2:
        return None
    return axes == [1, 0] if how == "permute" else axes[0] != axes[1]


def scales_in(value: Value) -> list[Tensor]:
    """The followed scales in a value."""
    if isinstance(value, Tensor):
        return [value] if value.ours else []
    if isinstance(value, Named):
        return scales_in(tuple(value.items.values()))
    return [s for v in value for s in scales_in(v)] if isinstance(value, tuple) else []


def output_of(kernel: str, scale: Tensor) -> Value:
    """What the kernel returns: ((q, scale), bf16, second, residual), (q, residual,
    scale), or the pair."""
    pair = (Tensor(f"q of {scale}", ours=False, transposed=None), scale)
    if kernel == ALL_REDUCE:
        return (pair[0], Symbol(f"residual of {scale}"), scale)
    if kernel != RMS:
        return pair
    rest = ("unquantized", "second output", "residual")
    return (pair, *(Symbol(f"{name} of {scale}") for name in rest))


def copy_of(value: Value) -> Value:
    """A copy with its own tensors, because paths may mark them."""
    if isinstance(value, tuple):
        return tuple(map(copy_of, value))
    return replace(value) if isinstance(value, Tensor) else value


def key_of(value: Value) -> object:
    """Equal for values that cannot be distinguished here."""
    if isinstance(value, tuple):
        return tuple(map(key_of, value))
    return value.key if isinstance(value, Tensor) else repr(value)


def producer_among(values: Sequence[Value]) -> str | None:
    """The producing kernel that is passed as a value."""
    for value in values:
        if isinstance(value, Kernel) and value.name in QUANTIZATIONS:
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
    """``value[a:b]`` if the source states the bounds; otherwise unknown."""
    try:
        parts = (part.lower, part.upper, part.step)
        bounds: list[Any] = [node and ast.literal_eval(node) for node in parts]
        return value[slice(*bounds)]
    except (TypeError, ValueError):
        return Symbol(f"{value!r}[{ast.unparse(part)}]")


def compare(left: Value, op: ast.cmpop, right: Value) -> Value:
    negated = isinstance(op, ast.IsNot | ast.NotEq)
    if isinstance(op, ast.Is | ast.IsNot | ast.Eq | ast.NotEq):
        if isinstance(left, Const) and isinstance(right, Const):
            return Const((left == right) != negated)
        if isinstance(left, Imported) and isinstance(right, Imported):
            names = {left.name, right.name}
            # Two dtypes of torch: no dtype has two names here.
            if len(names) == 1 or all(_DTYPE.fullmatch(name) for name in names):
                return Const((len(names) == 1) != negated)
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
