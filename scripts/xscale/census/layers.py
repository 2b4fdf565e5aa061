"""Which attributes a native block-FP8 linear has, by the class that sets them.

Upstream once guarded producers by an attribute that no such layer has (SGLang 39410):
the code was adopted and never ran. The class's methods are read and not run. If a test
is decided for such a layer, one branch counts; otherwise both do.
"""

from __future__ import annotations

import ast
import os.path
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from xscale.census.modules import Function, FunctionNode, Module, Modules
from xscale.sites import NATIVE_FACTS, NATIVE_LINEAR, NATIVE_METHODS

_DEEPEST = 6
_READ_ONLY = {
    "getattr",
    "hasattr",
    "isinstance",
    "delattr",
    "print",
    "id",
    "type",
    "repr",
}
_OF_MODULES = {"register_parameter", "register_buffer"}


@dataclass
class Attributes:
    """Attributes set on a layer, and where; ``open`` if there may be others."""

    given: dict[str, str] = field(default_factory=dict)
    open: bool = False


@dataclass(frozen=True)
class NativeLayers:
    """The attributes of such layers, and those that only other layers of the class
    have."""

    has: Mapping[str, str]
    has_not: frozenset[str]

    def instead_of(self, name: str) -> str:
        """The attribute that they have instead of ``name``, and where it is set."""
        near = [own for own in self.has if own.startswith(name)] or list(self.has)
        return f"{near[0]} ({self.has[near[0]]})" if near else "nothing"


def native_layers(modules: Modules, near: str) -> NativeLayers | None:
    """Read the class nearest to a path; a tree may contain several runtimes.

    None if the runtime of that path has no such class or it cannot be read.
    """
    root = os.path.commonpath([path for path, _ in modules.holding("")] or [near])

    def shared(path: str) -> int:
        return len(os.path.commonpath([path, near]))

    holding = [path for path, _ in modules.holding(f"class {NATIVE_LINEAR}")]
    nearest = max(holding, key=shared, default=None)
    module = (
        modules.module(nearest) if nearest and shared(nearest) > len(root) else None
    )
    if module is None or NATIVE_LINEAR not in module.classes:
        return None
    reader = _Reader(modules, module, module.classes[NATIVE_LINEAR])
    native, every = reader.read(NATIVE_FACTS), reader.read({})
    if native.open or not native.given:
        return None
    return NativeLayers(native.given, frozenset(every.given) - set(native.given))


def set_elsewhere(modules: Modules, layer: str, name: str) -> str | None:
    """Where a file that mentions the projection ``layer`` sets ``name`` on it, if
    any."""
    given = re.compile(
        rf"\b{layer}\.{name}\s*=[^=]"
        rf"|set\w*\([^)]*\b{layer},\s*[\"']{name}[\"']"
        rf"|\b{layer}\.register_\w+\(\s*[\"']{name}[\"']".encode()
    )
    for path, source in modules.holding(layer):
        if name.encode() not in source:
            continue
        lines = source.splitlines()
        for number, line in enumerate(lines):
            # A call may span several lines.
            if name.encode() in line and given.search(
                b" ".join(lines[max(number - 3, 0) : number + 1])
            ):
                return f"{path}:{number + 1}"
    return None


Facts = Mapping[str, bool | str]


@dataclass
class _Scope:
    """A function that is read: the names of the layer in it, and the known facts."""

    module: Module
    layers: set[str]
    facts: Facts
    depth: int

    def holds_layer(self, node: ast.expr) -> bool:
        return isinstance(node, ast.Name) and node.id in self.layers


class _Reader:
    """Reads the methods of a class."""

    def __init__(self, modules: Modules, module: Module, of: ast.ClassDef) -> None:
        self._modules = modules
        self._module = module
        self._methods = {n.name: n for n in of.body if isinstance(n, FunctionNode)}
        self._found = Attributes()

    def read(self, facts: Facts) -> Attributes:
        self._found = Attributes()
        for name in NATIVE_METHODS:
            method = self._methods.get(name)
            if method is None or len(method.args.args) < 2:
                self._found.open = True
            else:
                layer = method.args.args[1].arg
                scope = _Scope(self._module, {layer}, facts, _DEEPEST)
                self._body(method.body, scope)
        return self._found

    def _body(self, body: list[ast.stmt], scope: _Scope) -> None:
        for node in _taken(body, scope.facts):
            if isinstance(node, ast.Call):
                self._call(node, scope)
            elif isinstance(node, ast.Assign) and scope.holds_layer(node.value):
                scope.layers |= {t.id for t in node.targets if isinstance(t, ast.Name)}
            elif (
                isinstance(node, ast.Attribute)
                and isinstance(node.ctx, ast.Store)
                and scope.holds_layer(node.value)
            ):
                self._give(node.attr, node, scope)

    def _give(self, name: bool | str | None, node: ast.expr, scope: _Scope) -> None:
        if isinstance(name, str):
            place = f"{scope.module.path}:{node.lineno}"
            self._found.given.setdefault(name, place)
        else:
            self._found.open = True

    def _call(self, call: ast.Call, scope: _Scope) -> None:
        callee, given = call.func, [*call.args, *(k.value for k in call.keywords)]
        name = callee.id if isinstance(callee, ast.Name) else ""
        if isinstance(callee, ast.Attribute) and scope.holds_layer(callee.value):
            if callee.attr in _OF_MODULES:
                self._give(_known_value(call.args[0], scope.facts), call, scope)
        elif name in _READ_ONLY or not any(map(scope.holds_layer, given)):
            return
        elif name == "setattr":
            self._give(_known_value(call.args[1], scope.facts), call, scope)
        else:
            self._into(call, scope)

    def _into(self, call: ast.Call, scope: _Scope) -> None:
        """Read the function that receives the layer."""
        target = self._target(scope.module, call.func)
        if target is None or not scope.depth:
            self._found.open = True
            return
        function = target.node
        names = [a.arg for a in (*function.args.posonlyargs, *function.args.args)]
        if names[:1] == ["self"]:
            names = names[1:]
        bound = dict(zip(names, call.args, strict=False))
        bound |= {k.arg: k.value for k in call.keywords if k.arg is not None}
        known = {
            name: _known_value(value, scope.facts) for name, value in bound.items()
        }
        facts = {n: v for n, v in scope.facts.items() if n in NATIVE_FACTS} | {
            name: value for name, value in known.items() if value is not None
        }
        facts = {n: v for n, v in facts.items() if known.get(n, v) is not None}
        layers = {name for name, value in bound.items() if scope.holds_layer(value)}
        self._body(function.body, _Scope(target.module, layers, facts, scope.depth - 1))

    def _target(self, module: Module, callee: ast.expr) -> Function | None:
        if isinstance(callee, ast.Attribute) and callee.attr in self._methods:
            owner = ast.unparse(callee.value)
            if owner in ("self", "cls", NATIVE_LINEAR):
                method = self._methods[callee.attr]
                return Function(callee.attr, self._module, method)
        return self._modules.function_of(module, callee)


def _taken(body: list[ast.stmt], facts: Facts) -> Iterator[ast.AST]:
    """All nodes except those in branches that are not taken."""
    stack: list[ast.AST] = list(reversed(body))
    while stack:
        node = stack.pop()
        if isinstance(node, ast.If | ast.IfExp):
            truth = _known_value(node.test, facts)
            stack.append(node.test)
            for branch, taken in ((node.body, True), (node.orelse, False)):
                if truth is None or bool(truth) is taken:
                    stack += branch if isinstance(branch, list) else [branch]
            continue
        yield node
        stack += ast.iter_child_nodes(node)


def _known_value(node: ast.expr, facts: Facts) -> bool | str | None:
    """The value of a test, or a text; None if unknown."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, bool | str) else None
    if isinstance(node, ast.Call) and not node.args:
        return _known_value(node.func, facts)
    if isinstance(node, ast.Name | ast.Attribute):
        name = node.id if isinstance(node, ast.Name) else node.attr
        return facts.get(name, facts.get(name.lstrip("_")))
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        truth = _known_value(node.operand, facts)
        return None if truth is None else not truth
    if isinstance(node, ast.BoolOp):
        truths = [_known_value(part, facts) for part in node.values]
        decides = isinstance(node.op, ast.Or)
        if any(truth is not None and bool(truth) is decides for truth in truths):
            return decides
        return None if None in truths else not decides
    return None
