"""Which layout AITER's fused quantizations return, read from their source.

No release states it in one place: the module moved, the second function got the
parameter months after the first, and the returned layout changed more than once. So
this follows the wrapper with the parameter set: from the scale's buffer, through the
strides that the kernel gets, to the return value. Code in other forms gives an unknown
layout.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from overlaykit.core.syntax import parsed
from overlaykit.trees.tree import Tree
from xscale.numeric.layout import ScaleLayout
from xscale.sites import PRODUCERS

PARAMETER = "transpose_scale"
UNKNOWN = "unknown"

_FOLDER = "aiter/ops/triton/"
_TRANSPOSES = {"t()", "T", "transpose(0, 1)", "transpose(1, 0)", "permute(1, 0)",
               "transpose(-1, -2)", "transpose(-2, -1)", "mT"}  # fmt: skip


@dataclass(frozen=True)
class KernelRow:
    """One quantization. ``layout`` is the value of the :class:`ScaleLayout` that it
    returns, or unknown. ``path`` and ``line`` are None if the tree does not define
    it."""

    kernel: str
    path: str | None
    line: int | None
    parameter: bool
    layout: str
    detail: str


def take_kernels(tree: Tree) -> tuple[KernelRow, ...]:
    """The quantizations of an AITER tree, one row each, in the order of
    :data:`PRODUCERS`."""
    found: dict[str, list[tuple[str, ast.FunctionDef]]] = {k: [] for k in PRODUCERS}
    for path in sorted(tree.paths()):
        if not path.startswith(_FOLDER) or not path.endswith(".py"):
            continue
        data = tree.read(path) or b""
        if not any(f"def {kernel}(".encode() in data for kernel in found):
            continue
        for function in _functions(data):
            if function.name in found:
                found[function.name].append((path, function))
    return tuple(_row(kernel, places) for kernel, places in found.items())


def _functions(data: bytes) -> list[ast.FunctionDef]:
    try:
        module = parsed(data)
    except SyntaxError:
        return []
    return [node for node in module.body if isinstance(node, ast.FunctionDef)]


def _row(kernel: str, places: list[tuple[str, ast.FunctionDef]]) -> KernelRow:
    if not places:
        return KernelRow(kernel, None, None, False, UNKNOWN, "not defined in this tree")
    path, function = places[0]
    names = [a.arg for a in (*function.args.args, *function.args.kwonlyargs)]
    has = PARAMETER in names
    if len(places) > 1:
        where = ", ".join(f"{p}:{f.lineno}" for p, f in places)
        layout, detail = UNKNOWN, f"defined more than once: {where}"
    elif has:
        layout, detail = _with_options(function)
    else:
        layout, detail = ScaleLayout.NO_PARAMETER.value, ""
    return KernelRow(kernel, path, function.lineno, has, layout, detail)


def _with_options(function: ast.FunctionDef) -> tuple[str, str]:
    """The default layout, and the options that would change it."""
    options = _options(function)
    default = _layout_of(function, {**options, PARAMETER: True})
    details = [default[1]]
    for name, value in options.items():
        if name == PARAMETER:
            continue
        other = _layout_of(function, {**options, PARAMETER: True, name: not value})
        if other[0] != default[0]:
            details.append(f"{other[0]} with {name}={not value}")
    return default[0], "; ".join(details)


def _options(function: ast.FunctionDef) -> dict[str, bool]:
    """The parameters whose default is true or false."""
    args = function.args
    positional = (*args.posonlyargs, *args.args)
    tail = positional[len(positional) - len(args.defaults) :]
    pairs = [*zip(tail, args.defaults, strict=True)]
    pairs += [
        (a, d) for a, d in zip(args.kwonlyargs, args.kw_defaults, strict=True) if d
    ]
    return {
        arg.arg: default.value
        for arg, default in pairs
        if isinstance(default, ast.Constant) and isinstance(default.value, bool)
    }


class _Unknown(Exception):
    """The source has a form that is not supported here."""


@dataclass(frozen=True)
class _Scale:
    """A two-dimensional scale: the axis of the rows, the contiguous axis, and whether
    its bytes lie in (groups, rows) order; None before the kernel has written it."""

    rows: int
    fast: int
    transposed: bool | None = None


def _layout_of(
    function: ast.FunctionDef, options: Mapping[str, bool]
) -> tuple[str, str]:
    try:
        scale = _WrapperReader(function, options).run()
    except _Unknown as unread:
        return UNKNOWN, str(unread)
    if scale.rows != 0:
        return UNKNOWN, "returns the scale with its axes exchanged"
    if not scale.transposed:
        if scale.fast != 1:
            return UNKNOWN, "row-major bytes behind exchanged strides"
        return ScaleLayout.IGNORED.value, "the scale comes back row-major"
    if scale.fast == 0:
        return ScaleLayout.HONEST.value, "transposed bytes, strides (1, M)"
    return (
        ScaleLayout.LYING.value,
        "transposed bytes behind a contiguous (M, groups) view",
    )


class _WrapperReader:
    """One pass through a wrapper, with known options."""

    def __init__(self, function: ast.FunctionDef, options: Mapping[str, bool]) -> None:
        self._function = function
        self._options = options
        self._rows: str | None = None
        self._name = _scale_name(function)
        self._scale: _Scale | None = None
        # Names of the scale's strides, with their axes.
        self._strides: dict[str, int] = {}

    def run(self) -> _Scale:
        self._block(self._function.body)
        if self._scale is None or self._scale.transposed is None:
            raise _Unknown("no launch receives the scale and its strides")
        return self._scale

    def _block(self, body: list[ast.stmt]) -> None:
        for statement in body:
            if isinstance(statement, ast.If):
                self._if(statement)
            elif isinstance(statement, ast.Assign) and len(statement.targets) == 1:
                self._assign(statement.targets[0], statement.value)
            elif isinstance(statement, ast.AnnAssign) and statement.value is not None:
                self._assign(statement.target, statement.value)
            elif isinstance(statement, ast.Expr):
                self._call(statement.value)
            elif self._touches(statement) and not isinstance(statement, ast.Return):
                raise _Unknown(f"line {statement.lineno} has an unknown form")

    def _if(self, statement: ast.If) -> None:
        test = statement.test
        turned = isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not)
        name = ast.unparse(test.operand if isinstance(test, ast.UnaryOp) else test)
        if name in self._options:
            chosen = self._options[name] != turned
            self._block(statement.body if chosen else statement.orelse)
        elif self._touches(statement):
            raise _Unknown(f"line {statement.lineno} asks for {ast.unparse(test)}")

    def _touches(self, node: ast.AST) -> bool:
        """Whether a node mentions the scale or its strides."""
        mine = {self._name, *self._strides}
        names = (n.id for n in ast.walk(node) if isinstance(n, ast.Name))
        return not mine.isdisjoint(names)

    def _assign(self, target: ast.expr, value: ast.expr) -> None:
        if isinstance(target, ast.Tuple):
            first = target.elts[0]
            parameter = self._function.args.args[0].arg
            if ast.unparse(value) == f"{parameter}.shape" and self._rows is None:
                self._rows = ast.unparse(first)
            elif any(ast.unparse(e) == self._name for e in target.elts):
                raise _Unknown(f"line {target.lineno} unpacks the scale")
            return
        name = ast.unparse(target)
        if name == self._name:
            self._scale = self._value(value)
        elif (axis := self._axis(value)) is not None:
            self._strides[name] = axis
        else:
            self._strides.pop(name, None)
            self._call(value)

    def _value(self, node: ast.expr) -> _Scale:
        """The scale that an expression returns."""
        if isinstance(node, ast.Name) and node.id == self._name and self._scale:
            return self._scale
        if isinstance(node, ast.Attribute) and node.attr in _TRANSPOSES:
            return _exchanged(self._value(node.value))
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            raise _Unknown(f"line {node.lineno} makes the scale of {ast.unparse(node)}")
        method = node.func.attr
        arguments = [ast.unparse(argument) for argument in node.args]
        if ast.unparse(node.func) == "torch.empty":
            shape = node.args[0] if len(node.args) == 1 else ast.Tuple(node.args)
            return self._shaped(shape, node.lineno)
        scale = self._value(node.func.value)
        if f"{method}({', '.join(arguments)})" in _TRANSPOSES:
            return _exchanged(scale)
        if method == "contiguous" and not node.args:
            if scale.fast == 1:
                return scale
            if scale.transposed is not (scale.fast == scale.rows):
                raise _Unknown(f"line {node.lineno} copies by strides that are wrong")
            return replace(scale, fast=1, transposed=scale.rows == 1)
        if method in ("view", "reshape") and scale.fast == 1:
            if arguments == [f"{self._name}.shape[::-1]"]:
                return replace(scale, rows=1 - scale.rows)
            shape = node.args[0] if len(node.args) == 1 else ast.Tuple(node.args)
            return replace(
                self._shaped(shape, node.lineno), transposed=scale.transposed
            )
        raise _Unknown(f"line {node.lineno} does {method} to the scale")

    def _shaped(self, shape: ast.expr, line: int) -> _Scale:
        if isinstance(shape, ast.Tuple) and len(shape.elts) == 2:
            names = [ast.unparse(element) for element in shape.elts]
            if names.count(self._rows or "") == 1:
                return _Scale(names.index(self._rows or ""), 1)
        raise _Unknown(f"line {line} gives the scale a shape whose rows are unknown")

    def _axis(self, node: ast.expr) -> int | None:
        """The axis if a name or an expression is one of the scale's strides."""
        if isinstance(node, ast.Name):
            return self._strides.get(node.id)
        axes = {f"{self._name}.stride({axis})": axis % 2 for axis in (0, 1, -1, -2)}
        return axes.get(ast.unparse(node))

    def _call(self, node: ast.expr) -> None:
        """A launch writes the scale with the strides that it receives."""
        if not isinstance(node, ast.Call) or self._scale is None:
            return
        values = [*node.args, *(keyword.value for keyword in node.keywords)]
        given = any(isinstance(v, ast.Name) and v.id == self._name for v in values)
        if not given:
            return
        if not isinstance(node.func, ast.Subscript):
            raise _Unknown(f"line {node.lineno} passes the scale to another function")
        axes = list(self._given_axes(values))
        if sorted(axes) != [0, 1]:
            raise _Unknown(f"line {node.lineno} does not give the kernel its strides")
        if axes[0] != self._scale.rows:
            raise _Unknown(f"line {node.lineno} gives the strides in another order")
        transposed = self._scale.fast == axes[0]
        self._scale = replace(self._scale, transposed=transposed)

    def _given_axes(self, values: list[ast.expr]) -> Iterator[int]:
        """The axes of the strides that are given; kernels take that of the rows
        first."""
        for value in values:
            if isinstance(value, ast.Starred):
                if ast.unparse(value.value) == f"{self._name}.stride()":
                    yield from (0, 1)
            elif (axis := self._axis(value)) is not None:
                yield axis


def _exchanged(scale: _Scale) -> _Scale:
    return replace(scale, rows=1 - scale.rows, fast=1 - scale.fast)


def _scale_name(function: ast.FunctionDef) -> str:
    """The name of the returned scale: the second element of (fp8, scale). That pair may
    be the first element of the returned tuple."""
    last = function.body[-1]
    value = last.value if isinstance(last, ast.Return) else None
    while isinstance(value, ast.Tuple) and isinstance(value.elts[0], ast.Tuple):
        value = value.elts[0]
    if isinstance(value, ast.Tuple) and len(value.elts) > 1:
        return ast.unparse(value.elts[1])
    return ""
