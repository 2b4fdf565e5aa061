"""Follows an activation scale through the source that makes, marks and reads it.

A small abstract interpreter. It runs a function once per path; a condition that the
source leaves open is assumed one way on one path and the other way on the next, and
stays as assumed wherever it comes back, so ``if gate: copy`` and ``if gate: ck`` are
never mixed up. Calls that carry a scale or a kernel into another function of the tree
are run too. Whatever it does not understand becomes a :class:`Symbol`, and a scale
that goes into one is lost, not guessed at.
"""

from __future__ import annotations

import ast
import builtins
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from contract.modules import (
    Const,
    Function,
    FunctionNode,
    Imported,
    Kernel,
    Module,
    Modules,
)
from contract.sites import MARKER, PRODUCERS, RMS

_MOST_PATHS = 2000
_DEEPEST_CALL = 8
_TURNS = {"transpose", "t", "T", "mT", "permute", "swapaxes", "swapdims"}
_VIEWS = {"view", "reshape", "as_strided", "view_as", "detach", "clone"}


class TooManyPaths(Exception):
    """The code branches too often to be followed."""


@dataclass(frozen=True)
class Symbol:
    """A value that the source leaves open; equal texts are equal values."""

    text: str
    negated: bool = False

    def __repr__(self) -> str:
        return f"not {self.text}" if self.negated else self.text


@dataclass(eq=False)
class Scale:
    """One scale tensor object; views of it are others and lose the marker.

    ``transposed``: its kernel was asked for (groups, M) bytes; None where the source
    does not tell. ``turned``: this view swaps the dimensions, so that ``contiguous``
    is a copy into the other order.
    """

    ours: bool = field(repr=False)
    transposed: bool | None = field(repr=False)
    marked: bool | None = field(default=False, repr=False)
    copied: bool = field(default=False, repr=False)
    turned: bool = field(default=False, repr=False)
    serial: int = 0


@dataclass(eq=False)
class Named:
    """Keyword arguments on their way through ``**kwargs``."""

    items: dict[str, Value]
    opaque: bool = False


Value: TypeAlias = (
    "Symbol | Scale | Named | Const | Kernel | Function | Imported | tuple[Value, ...]"
)
_NONE = Const(None)


@dataclass(frozen=True)
class Use:
    """What a scale was when it was handed on, and to whom."""

    by: str
    transposed: bool | None
    marked: bool | None
    copied: bool


@dataclass
class _Frame:
    module: Module
    names: dict[str, Value]
    depth: int = 0


@dataclass
class _Arguments:
    positional: list[Value]
    named: dict[str, Value]
    opaque: bool

    def all(self) -> tuple[Value, ...]:
        return (*self.positional, *self.named.values())


class _PathEnds(Exception):
    pass


class _LoopEnds(Exception):
    pass


class _Returns(Exception):
    def __init__(self, value: Value) -> None:
        self.value = value


def uses_of_call(
    modules: Modules, module: Module, function: FunctionNode | None, call: ast.Call
) -> frozenset[Use]:
    """The first use, on every path on from ``call``, of the scale it makes.

    Raises TooManyPaths.
    """
    body = (function or module.tree).body
    blocks, conditions = _continuation(body, call)

    def run(path: _Path) -> None:
        frame = _Frame(module, _locals(function) if function else {})
        for test, truth in conditions:
            path.assume(test, truth, frame)
        for block in blocks:
            try:
                path.block(block, frame)
            except _LoopEnds:
                continue
            except _Returns as returned:
                path.use("return", returned.value)
                return

    return _uses_on_all_paths(lambda script: _Path(modules, script, call), run)


def uses_of_parameter(
    modules: Modules,
    module: Module,
    function: FunctionNode,
    parameter: str,
    marked: bool,
) -> frozenset[Use]:
    """Every use, on every path, of a scale given as ``parameter``.

    Raises TooManyPaths.
    """

    def run(path: _Path) -> None:
        given = Scale(ours=True, transposed=None, marked=marked)
        frame = _Frame(module, {**_locals(function), parameter: given})
        try:
            path.block(function.body, frame)
        except _Returns:
            return

    return _uses_on_all_paths(lambda script: _Path(modules, script, None), run)


def _uses_on_all_paths(
    start: Callable[[Sequence[bool]], _Path], run: Callable[[_Path], None]
) -> frozenset[Use]:
    """Run once per path: each run repeats the last but for its last open choice."""
    uses: set[Use] = set()
    script: list[bool] = []
    for _ in range(_MOST_PATHS):
        path = start(script)
        try:
            run(path)
        except _PathEnds:
            pass
        uses.update(path.uses)
        taken = path.taken
        while taken and not taken[-1]:
            taken.pop()
        if not taken:
            return frozenset(uses)
        script = [*taken[:-1], False]
    raise TooManyPaths


class _Path:
    """One path: the choices made on it, and what became of the scale."""

    def __init__(
        self, modules: Modules, script: Sequence[bool], root: ast.Call | None
    ) -> None:
        self.uses: list[Use] = []
        self.taken: list[bool] = []
        self._modules = modules
        self._script = script
        self._root = root
        self._in_root = False
        self._known: dict[str, bool] = {}
        self._scales = 0

    # Choices

    def decide(self, key: str) -> bool:
        if key not in self._known:
            at = len(self.taken)
            self._known[key] = self._script[at] if at < len(self._script) else True
            self.taken.append(self._known[key])
        return self._known[key]

    def truth(self, value: Value) -> bool:
        if isinstance(value, Symbol):
            return self.decide(value.text) != value.negated
        if isinstance(value, Const):
            return bool(value.value)
        if isinstance(value, tuple):
            return bool(value)
        return isinstance(value, Scale | Kernel | Function) or self.decide(repr(value))

    def assume(self, test: ast.expr, truth: bool, frame: _Frame) -> None:
        """Take it from an enclosing ``if`` that its test went this way."""
        if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
            self.assume(test.operand, not truth, frame)
        elif isinstance(test, ast.BoolOp):
            if isinstance(test.op, ast.And) == truth:
                for part in test.values:
                    self.assume(part, truth, frame)
        else:
            value = self.value(test, frame)
            if isinstance(value, Symbol):
                self._known[value.text] = truth != value.negated

    def use(self, by: str, value: Value) -> None:
        """Note that a scale is handed on; a producer's path ends there."""
        for scale in _scales(value):
            if scale.ours:
                self.uses.append(Use(by, scale.transposed, scale.marked, scale.copied))
        if self.uses and self._root is not None:
            raise _PathEnds

    # Statements

    def block(self, body: Sequence[ast.stmt], frame: _Frame) -> None:
        for statement in body:
            self._statement(statement, frame)

    def _statement(self, node: ast.stmt, frame: _Frame) -> None:
        if isinstance(node, ast.Assign):
            value = self.value(node.value, frame)
            for target in node.targets:
                self._bind(target, value, frame)
        elif isinstance(node, ast.AnnAssign) and node.value is not None:
            self._bind(node.target, self.value(node.value, frame), frame)
        elif isinstance(node, ast.AugAssign):
            self._bind(node.target, self._opaque(node, frame), frame)
        elif isinstance(node, ast.Expr):
            self.value(node.value, frame)
        elif isinstance(node, ast.Return):
            raise _Returns(self.value(node.value, frame) if node.value else _NONE)
        elif isinstance(node, ast.Raise):
            raise _PathEnds
        elif isinstance(node, ast.Break | ast.Continue):
            raise _LoopEnds
        else:
            self._compound(node, frame)

    def _compound(self, node: ast.stmt, frame: _Frame) -> None:
        here = f"{frame.module.path}:{node.lineno}"
        if isinstance(node, ast.If):
            truth = self.truth(self.value(node.test, frame))
            self.block(node.body if truth else node.orelse, frame)
        elif isinstance(node, ast.For | ast.AsyncFor | ast.While):
            if not isinstance(node, ast.While):
                self.value(node.iter, frame)
                self._bind(node.target, Symbol(f"item at {here}"), frame)
            try:
                if self.decide(f"{here} loops"):
                    self.block(node.body, frame)
                self.block(node.orelse, frame)
            except _LoopEnds:
                return
        elif isinstance(node, ast.With | ast.AsyncWith):
            for item in node.items:
                value = self.value(item.context_expr, frame)
                if item.optional_vars is not None:
                    self._bind(item.optional_vars, value, frame)
            self.block(node.body, frame)
        elif isinstance(node, ast.Try):
            handlers = [
                h for h in node.handlers if self.decide(f"{here} raises {h.lineno}")
            ]
            self.block(handlers[0].body if handlers else node.body, frame)
            self.block([] if handlers else node.orelse, frame)
            self.block(node.finalbody, frame)
        elif isinstance(node, ast.Match):
            for case in node.cases:
                if self.decide(f"{here} is {case.pattern.lineno}"):
                    self.block(case.body, frame)
                    return

    def _bind(self, target: ast.expr, value: Value, frame: _Frame) -> None:
        if isinstance(target, ast.Name):
            frame.names[target.id] = value
        elif isinstance(target, ast.Tuple | ast.List):
            for part, item in zip(target.elts, _unpack(target.elts, value)):
                inner = part.value if isinstance(part, ast.Starred) else part
                self._bind(inner, item, frame)
        elif isinstance(target, ast.Attribute):
            self._set(self.value(target.value, frame), Const(target.attr), value)
        elif isinstance(target, ast.Subscript):
            owner = self.value(target.value, frame)
            key = self.value(target.slice, frame)
            if not isinstance(owner, Named):
                self.use("item", value)
            elif isinstance(key, Const) and isinstance(key.value, str):
                owner.items[key.value] = value
            else:
                owner.opaque = True

    def _set(self, owner: Value, name: Value, value: Value) -> None:
        """``owner.name = value``, however it is spelled."""
        if not isinstance(owner, Scale):
            self.use("attribute", value)
        elif not isinstance(name, Const):
            owner.marked = None
        elif name.value == MARKER:
            owner.marked = self.truth(value)

    # Expressions

    def value(self, node: ast.expr, frame: _Frame) -> Value:
        if isinstance(node, ast.Constant):
            return Const(node.value)
        if isinstance(node, ast.Name):
            return self._name(node.id, frame)
        if isinstance(node, ast.Tuple | ast.List):
            return tuple(self._items(node.elts, frame))
        if isinstance(node, ast.Attribute):
            return self._attribute(node, frame)
        if isinstance(node, ast.Subscript):
            return self._subscript(node, frame)
        if isinstance(node, ast.Call):
            return self._call(node, frame)
        if isinstance(node, ast.IfExp):
            truth = self.truth(self.value(node.test, frame))
            return self.value(node.body if truth else node.orelse, frame)
        if isinstance(node, ast.NamedExpr):
            value = self.value(node.value, frame)
            self._bind(node.target, value, frame)
            return value
        return self._logic(node, frame)

    def _logic(self, node: ast.expr, frame: _Frame) -> Value:
        if isinstance(node, ast.BoolOp):
            for part in node.values[:-1]:
                value = self.value(part, frame)
                if self.truth(value) != isinstance(node.op, ast.And):
                    return value
            return self.value(node.values[-1], frame)
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            value = self.value(node.operand, frame)
            if isinstance(value, Symbol):
                return Symbol(value.text, not value.negated)
            return Const(not self.truth(value))
        if isinstance(node, ast.Compare) and len(node.ops) == 1:
            left = self.value(node.left, frame)
            right = self.value(node.comparators[0], frame)
            return _compare(left, node.ops[0], right)
        if isinstance(node, ast.Await):
            return self.value(node.value, frame)
        if isinstance(node, ast.Yield | ast.YieldFrom):
            self.use("yield", self.value(node.value, frame) if node.value else _NONE)
        return self._opaque(node, frame)

    def _opaque(self, node: ast.AST, frame: _Frame) -> Symbol:
        """Anything else: its parts are run for what they do."""
        if isinstance(node, ast.Lambda | ast.comprehension):
            return Symbol(ast.dump(node))
        parts = [type(node).__name__]
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.expr):
                parts.append(repr(self.value(child, frame)))
            elif not isinstance(child, ast.expr_context):
                parts.append(repr(self._opaque(child, frame)))
        return Symbol(f"({' '.join(parts)})")

    def _name(self, name: str, frame: _Frame) -> Value:
        if name in frame.names:
            return frame.names[name]
        return self._modules.meaning(frame.module, name) or Symbol(name)

    def _items(self, nodes: Sequence[ast.expr], frame: _Frame) -> Iterator[Value]:
        for node in nodes:
            if isinstance(node, ast.Starred):
                value = self.value(node.value, frame)
                yield from value if isinstance(value, tuple) else (Symbol(f"*{value!r}"),)
            else:
                yield self.value(node, frame)

    def _attribute(self, node: ast.Attribute, frame: _Frame) -> Value:
        owner = self.value(node.value, frame)
        if isinstance(owner, Imported):
            return self._modules.member(frame.module, owner.name, node.attr)
        if isinstance(owner, Scale):
            return self._get(owner, Const(node.attr))
        return Symbol(f"{owner!r}.{node.attr}")

    def _get(self, owner: Value, name: Value) -> Value:
        """``owner.name``, however it is spelled."""
        if isinstance(owner, Scale) and isinstance(name, Const):
            if name.value == MARKER and owner.marked is not None:
                return Const(owner.marked)
            if name.value in ("T", "mT"):
                return self._derived(owner, str(name.value))
        return Symbol(f"{owner!r}.{name!r}")

    def _subscript(self, node: ast.Subscript, frame: _Frame) -> Value:
        owner, key = self.value(node.value, frame), self.value(node.slice, frame)
        if isinstance(key, Const) and isinstance(key.value, int | str):
            if isinstance(owner, tuple) and isinstance(key.value, int):
                if -len(owner) <= key.value < len(owner):
                    return owner[key.value]
            if isinstance(owner, Named) and key.value in owner.items:
                return owner.items[str(key.value)]
        return Symbol(f"{owner!r}[{key!r}]")

    # Calls

    def _call(self, node: ast.Call, frame: _Frame) -> Value:
        if node is not self._root:
            return self._dispatch(node, frame)
        self._in_root = True
        try:
            return self._dispatch(node, frame)
        finally:
            self._in_root = False

    def _dispatch(self, node: ast.Call, frame: _Frame) -> Value:
        arguments = self._arguments(node, frame)
        if isinstance(node.func, ast.Attribute):
            owner = self.value(node.func.value, frame)
            if isinstance(owner, Scale):
                return self._derived(owner, node.func.attr)
            if isinstance(owner, Named) and node.func.attr not in ("get", "items"):
                owner.opaque = True
        callee = self.value(node.func, frame)
        if isinstance(callee, Kernel):
            return self._run_kernel(callee.name, arguments)
        if isinstance(callee, Symbol) and hasattr(builtins, callee.text):
            return self._builtin(callee.text, arguments)
        values = arguments.all()
        kernels = [v for v in values if isinstance(v, Kernel) and v.name in PRODUCERS]
        if isinstance(callee, Function) and (kernels or _scales(values)):
            if frame.depth < _DEEPEST_CALL:
                return self._inline(callee, arguments, frame.depth + 1)
        if isinstance(callee, Imported) and callee.name.startswith("torch."):
            first = arguments.positional[:1]
            if first and isinstance(first[0], Scale):
                return self._derived(first[0], callee.name.rpartition(".")[2])
        elif kernels:
            return self._output(kernels[0].name, None)
        else:
            self.use(_called(node.func), values)
        texts = ", ".join(map(repr, values))
        return Symbol(f"{callee!r}({texts})")

    def _arguments(self, node: ast.Call, frame: _Frame) -> _Arguments:
        positional = list(self._items(node.args, frame))
        opaque = any(isinstance(v, Symbol) and v.text[0] == "*" for v in positional)
        named: dict[str, Value] = {}
        for keyword in node.keywords:
            value = self.value(keyword.value, frame)
            if keyword.arg is not None:
                named[keyword.arg] = value
            elif isinstance(value, Named):
                named.update(value.items)
                opaque |= value.opaque
            else:
                opaque = True
        return _Arguments(positional, named, opaque)

    def _run_kernel(self, kernel: str, arguments: _Arguments) -> Value:
        if kernel not in PRODUCERS:
            self.use(kernel, arguments.all())
            return Symbol(f"output of {kernel}")
        bound = dict(zip(PRODUCERS[kernel], arguments.positional)) | arguments.named
        if "transpose_scale" in bound:
            return self._output(kernel, self.truth(bound["transpose_scale"]))
        return self._output(kernel, None if arguments.opaque else False)

    def _output(self, kernel: str, transposed: bool | None) -> Value:
        """What the kernel returns: ((q, scale), bf16, second, residual), or the pair."""
        self._scales += 1
        scale = Scale(self._in_root, transposed, serial=self._scales)
        pair = (Symbol(f"q of {scale!r}"), scale)
        if kernel != RMS:
            return pair
        rest = ("unquantized", "second output", "residual")
        return (pair, *(Symbol(f"{name} of {scale!r}") for name in rest))

    def _derived(self, scale: Scale, how: str) -> Value:
        """A tensor method or attribute of a scale: a view, a copy, or neither."""
        turned, copied = scale.turned != (how in _TURNS), scale.copied
        if how == "contiguous":
            if not scale.turned and not scale.transposed:
                return scale
            copied = copied or scale.turned
        elif how in _VIEWS:
            turned = False
        elif how not in _TURNS:
            if how.endswith("_"):
                scale.transposed = None
            return Symbol(f"{scale!r}.{how}()")
        self._scales += 1
        return Scale(
            scale.ours, scale.transposed, False, copied, turned, self._scales
        )

    def _builtin(self, name: str, arguments: _Arguments) -> Value:
        given = arguments.positional
        if name == "setattr" and len(given) == 3:
            self._set(given[0], given[1], given[2])
            return _NONE
        if name == "getattr" and len(given) > 1:
            return self._get(given[0], given[1])
        if name == "hasattr" and given[1:] == [Const(MARKER)]:
            return self._get(given[0], given[1])
        if name in ("tuple", "list") and given and isinstance(given[0], tuple):
            return given[0]
        if name == "isinstance" and given[1:] == [Symbol("tuple")]:
            if isinstance(given[0], tuple | Scale):
                return Const(isinstance(given[0], tuple))
        return Symbol(f"{name}({', '.join(map(repr, given))})")

    def _inline(self, function: Function, arguments: _Arguments, depth: int) -> Value:
        names = _locals(function.node) | _parameters(function.node, arguments)
        try:
            self.block(function.node.body, _Frame(function.module, names, depth))
        except _Returns as returned:
            return returned.value
        return _NONE


def _scales(value: Value) -> list[Scale]:
    if isinstance(value, Scale):
        return [value]
    if isinstance(value, Named):
        return _scales(tuple(value.items.values()))
    return [s for v in value for s in _scales(v)] if isinstance(value, tuple) else []


def _unpack(targets: Sequence[ast.expr], value: Value) -> Sequence[Value]:
    if isinstance(value, tuple):
        starred = [isinstance(t, ast.Starred) for t in targets]
        if True in starred:
            head, tail = starred.index(True), len(targets) - starred.index(True) - 1
            end = len(value) - tail
            if end >= head:
                return (*value[:head], value[head:end], *value[end:])
        elif len(value) == len(targets):
            return value
    return [Symbol(f"{value!r}[{i}]") for i in range(len(targets))]


def _compare(left: Value, op: ast.cmpop, right: Value) -> Value:
    negated = isinstance(op, ast.IsNot | ast.NotEq)
    if isinstance(op, ast.Is | ast.IsNot | ast.Eq | ast.NotEq):
        if isinstance(left, Const) and isinstance(right, Const):
            return Const((left == right) != negated)
        if right == _NONE and isinstance(left, Scale | tuple | Kernel | Function):
            return Const(negated)
        kind = "is" if isinstance(op, ast.Is | ast.IsNot) else "=="
        return Symbol(f"({left!r} {kind} {right!r})", negated)
    return Symbol(f"({left!r} {type(op).__name__} {right!r})")


def _called(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else ast.unparse(node)


def _locals(function: FunctionNode) -> dict[str, Value]:
    """A function's own names, all open: they hide those of its module."""
    names = [
        node.arg if isinstance(node, ast.arg) else node.id
        for node in ast.walk(function)
        if isinstance(node, ast.arg)
        or (isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store))
    ]
    return {name: Symbol(name) for name in names}


def _parameters(function: FunctionNode, arguments: _Arguments) -> dict[str, Value]:
    """What the parameters are given; those left to an unseen argument stay open."""
    declared, names = function.args, dict[str, Value]()
    positional = [*declared.posonlyargs, *declared.args]
    defaults = list(zip(reversed(positional), reversed(declared.defaults)))
    for arg, default in [*defaults, *zip(declared.kwonlyargs, declared.kw_defaults)]:
        if isinstance(default, ast.Constant) and not arguments.opaque:
            names[arg.arg] = Const(default.value)
    names |= {a.arg: v for a, v in zip(positional, arguments.positional)}
    known = {a.arg for a in (*positional, *declared.kwonlyargs)}
    names |= {n: v for n, v in arguments.named.items() if n in known}
    if declared.vararg is not None:
        names[declared.vararg.arg] = tuple(arguments.positional[len(positional) :])
    if declared.kwarg is not None:
        rest = {n: v for n, v in arguments.named.items() if n not in known}
        names[declared.kwarg.arg] = Named(rest, arguments.opaque)
    return names


def _continuation(
    body: Sequence[ast.stmt], call: ast.Call
) -> tuple[list[Sequence[ast.stmt]], list[tuple[ast.expr, bool]]]:
    """The statements from the one that holds ``call`` to the end, block by block.

    With them the tests of the enclosing ``if`` statements and how they went; a test
    of a name that is assigned in the meantime says nothing any more.
    """
    at = next(i for i, s in enumerate(body) if _holds(s, call))
    for name, inner in _blocks(body[at]):
        if any(_holds(s, call) for s in inner):
            blocks, conditions = _continuation(inner, call)
            outer = body[at]
            if isinstance(outer, ast.If) and not _names(outer.test) & _stored(outer):
                conditions.append((outer.test, name == "body"))
            return [*blocks, body[at + 1 :]], conditions
    return [body[at:]], []


def _blocks(node: ast.AST) -> Iterator[tuple[str, list[ast.stmt]]]:
    for name, value in ast.iter_fields(node):
        if isinstance(value, list) and value and isinstance(value[0], ast.stmt):
            yield name, value
        elif name in ("handlers", "cases"):
            yield from (block for part in value for block in _blocks(part))


def _holds(node: ast.AST, call: ast.Call) -> bool:
    return any(inner is call for inner in ast.walk(node))


def _names(node: ast.AST) -> set[str]:
    return {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}


def _stored(node: ast.AST) -> set[str]:
    return {
        n.id
        for n in ast.walk(node)
        if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)
    }
