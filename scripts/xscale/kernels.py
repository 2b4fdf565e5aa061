"""Which layout AITER's fused quantizations return, read from their source.

No release states it in one place: the module moved, the second function got the
parameter months after the first, and the returned layout changed more than once. So
this runs the wrapper with the parameter set, as the census runs functions: from the
scale's buffer, through the strides that the kernel gets, to the return value. Code in
other forms gives an unknown layout.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from overlaykit.trees.search import files_with
from overlaykit.trees.tree import Tree
from xscale.census.evaluator import Evaluator
from xscale.census.flow import TooManyPaths, every_path
from xscale.census.modules import Const, Function, FunctionNode, Modules
from xscale.census.path_records import (
    Frame,
    Method,
    PathEnds,
    Returns,
    defaults,
    local_names,
)
from xscale.census.values import (
    GROUPS,
    ROWS,
    Arguments,
    Symbol,
    Tensor,
    Value,
    scales_in,
    stored_names,
)
from xscale.numeric.layout import ScaleLayout
from xscale.sites import PRODUCERS

PARAMETER = "transpose_scale"
UNKNOWN = "unknown"

_FOLDER = "aiter/ops/triton/"
_MOST_PATHS = 200
_SUPPORTED = (ast.Assign, ast.AnnAssign, ast.Expr, ast.Return, ast.If)
_UNSEEN = "no launch receives the scale and its strides"


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
    modules = Modules(tree, ())
    found: dict[str, list[Function]] = {k: [] for k in PRODUCERS}
    texts = [f"def {kernel}(".encode() for kernel in found]
    for path, _ in files_with(tree, _FOLDER, texts):
        if (module := modules.module(path)) is None:
            continue
        for node in module.tree.body:
            if isinstance(node, ast.FunctionDef) and node.name in found:
                found[node.name].append(Function(node.name, module, node))
    return tuple(_row(modules, kernel, places) for kernel, places in found.items())


def _row(modules: Modules, kernel: str, places: Sequence[Function]) -> KernelRow:
    if not places:
        return KernelRow(kernel, None, None, False, UNKNOWN, "not defined in this tree")
    declared = places[0].node.args
    has = PARAMETER in {a.arg for a in (*declared.args, *declared.kwonlyargs)}
    if len(places) > 1:
        where = ", ".join(f"{f.module.path}:{f.node.lineno}" for f in places)
        layout, detail = UNKNOWN, f"defined more than once: {where}"
    elif has:
        layout, detail = _with_options(modules, places[0])
    else:
        layout, detail = ScaleLayout.NO_PARAMETER.value, ""
    path, line = places[0].module.path, places[0].node.lineno
    return KernelRow(kernel, path, line, has, layout, detail)


def _with_options(modules: Modules, function: Function) -> tuple[str, str]:
    """The default layout, and the options that would change it."""
    constants = {name: v.value for name, v in defaults(function.node).items()}
    options = {n: value for n, value in constants.items() if isinstance(value, bool)}
    options[PARAMETER] = True
    layout, detail = _layout_of(modules, function, options)
    details = [detail]
    for name, value in options.items():
        if name == PARAMETER:
            continue
        other, _ = _layout_of(modules, function, {**options, name: not value})
        if other != layout:
            details.append(f"{other} with {name}={not value}")
    return layout, "; ".join(details)


class _Unknown(Exception):
    """The source has a form that is not supported here."""


def _layout_of(
    modules: Modules, function: Function, options: Mapping[str, bool]
) -> tuple[str, str]:
    """The layout on every path; unknown if they differ."""
    given = {name: Const(value) for name, value in options.items()}
    found = set()
    try:
        for path in every_path(lambda s: _Wrapper(modules, s, function), _MOST_PATHS):
            if (scale := path.returned(given)) is not None:
                found.add(_described(scale))
    except _Unknown as unread:
        return UNKNOWN, str(unread)
    except TooManyPaths:
        return UNKNOWN, "branches too often to be followed"
    if len(found) != 1:
        return UNKNOWN, "returns the scale in several layouts or not at all"
    return found.pop()


def _described(scale: Tensor) -> tuple[str, str]:
    if scale.scrambled:
        raise _Unknown("copies the scale by strides that are wrong")
    if scale.columns is None:
        raise _Unknown(_UNSEEN)
    if scale.turned:
        return UNKNOWN, "returns the scale with its axes exchanged"
    if not scale.columns:
        if scale.by_columns:
            return UNKNOWN, "row-major bytes behind exchanged strides"
        return ScaleLayout.IGNORED.value, "the scale comes back row-major"
    if scale.by_columns:
        return ScaleLayout.HONEST.value, "transposed bytes, strides (1, M)"
    return (
        ScaleLayout.LYING.value,
        "transposed bytes behind a contiguous (M, groups) view",
    )


class _Stride(Symbol):
    """A stride of a buffer."""


class _Wrapper(Evaluator):
    """One path through a wrapper, with known options."""

    def __init__(
        self, modules: Modules, script: Sequence[bool], function: Function
    ) -> None:
        super().__init__(modules, script)
        self._function = function
        self._name = _scale_name(function.node)
        # What ``M, N = x.shape`` makes the rows.
        self._rows = Symbol(f"{function.node.args.args[0].arg}.shape[0]")

    def returned(self, options: Mapping[str, Value]) -> Tensor | None:
        """The scale; None if this path raises."""
        node = self._function.node
        frame = Frame(self._function.module, {**local_names(node), **options})
        try:
            self.block(node.body, frame)
        except PathEnds:
            return None
        except Returns as found:
            value = found.value
            while isinstance(value, tuple) and isinstance(value[0], tuple):
                value = value[0]
            scale = value[1] if isinstance(value, tuple) and value[1:] else None
            if isinstance(scale, Tensor):
                return scale
        raise _Unknown(_UNSEEN)

    def _statement(self, node: ast.stmt, frame: Frame) -> None:
        if isinstance(node, _SUPPORTED):
            super()._statement(node, frame)
        elif self._touches(node, frame):
            raise _Unknown(f"line {node.lineno} has an unknown form")
        else:
            frame.names |= {name: Symbol(name) for name in stored_names(node)}

    def _is_beside(self, node: ast.If, frame: Frame) -> bool:
        if isinstance(self._value(node.test, frame), Const):
            return False
        if self._touches(node, frame):
            asked = ast.unparse(node.test)
            raise _Unknown(f"line {node.lineno} asks for {asked}")
        return True

    def _touches(self, node: ast.AST, frame: Frame) -> bool:
        """Whether a node mentions the scale or its strides."""
        names = {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}
        values = (frame.names.get(name) for name in names)
        return self._name in names or any(isinstance(v, _Stride) for v in values)

    def _bind(self, target: ast.expr, value: Value, frame: Frame) -> None:
        if isinstance(target, ast.Name) and target.id == self._name:
            if not isinstance(value, Tensor) or value.by_columns is None:
                raise _Unknown(f"line {target.lineno} makes the scale of {value!r}")
            value.ours = True
        super()._bind(target, value, frame)

    def _run(
        self, callee: Value | Method, given: Arguments, node: ast.Call, frame: Frame
    ) -> Value:
        text = ast.unparse(node)
        if isinstance(callee, Method):
            return self._method(callee, given.all())
        if repr(callee) == "torch.empty":
            shape = self._shape(given.positional)
            turned = shape == (GROUPS, ROWS)
            if turned or shape == (ROWS, GROUPS):
                return Tensor(text, False, None, by_columns=turned, turned=turned)
        for scale in scales_in(given.all()):
            if not isinstance(node.func, ast.Subscript):
                to = ast.unparse(node.func)
                raise _Unknown(f"line {node.lineno} passes the scale to {to}")
            self._launch(scale, given.all(), node.lineno)
        return Symbol(text)

    def _method(self, method: Method, given: Sequence[Value]) -> Value:
        if method.name == "stride":
            strides = _strides(method.of)
            return self._item(strides, given[0]) if given else strides
        if method.name in ("view", "reshape"):
            given = (self._shape(given),)
        return method.of.derived(method.name, given)

    def _shape(self, given: Sequence[Value]) -> Value:
        """(ROWS, GROUPS) or (GROUPS, ROWS) if one of two dimensions is the rows."""
        shape = given[0] if len(given) == 1 else tuple(given)
        if isinstance(shape, tuple) and len(shape) == 2:
            rows = [size in (self._rows, ROWS) for size in shape]
            if rows.count(True) == 1:
                return (ROWS, GROUPS) if rows[0] else (GROUPS, ROWS)
        return shape

    def _launch(self, scale: Tensor, given: Sequence[Value], line: int) -> None:
        """A launch writes by the strides that it receives, that of the rows first."""
        rows, groups = _strides(scale)[:: -1 if scale.turned else 1]
        strides = [value for value in given if value in (rows, groups)]
        if strides not in ([rows, groups], [groups, rows]):
            raise _Unknown(f"line {line} does not give the kernel its strides")
        if strides[0] != rows:
            raise _Unknown(f"line {line} gives the strides in another order")
        scale.columns = scale.by_columns


def _strides(of: Tensor) -> tuple[Value, ...]:
    """The strides of a buffer; views have others."""
    view = f"{of} ({of.turned}, {of.by_columns})"
    return tuple(_Stride(f"stride {axis} of {view}") for axis in (0, 1))


def _scale_name(function: FunctionNode) -> str:
    """The name of the returned scale: the second element of (fp8, scale). That pair may
    be the first element of the returned tuple."""
    last = function.body[-1]
    value = last.value if isinstance(last, ast.Return) else None
    while isinstance(value, ast.Tuple) and isinstance(value.elts[0], ast.Tuple):
        value = value.elts[0]
    if isinstance(value, ast.Tuple) and len(value.elts) > 1:
        return ast.unparse(value.elts[1])
    return ""
