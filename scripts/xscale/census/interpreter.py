"""Runs one path through a function, with mostly unknown values.

Calls that pass a scale or a kernel to another function of the tree are run as well. An
expression that is not understood becomes a Symbol. A scale that goes into one is lost;
nothing is guessed.
"""

from __future__ import annotations

import ast
import builtins
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from xscale.census.modules import (
    Const,
    Function,
    Imported,
    Kernel,
    Modules,
    method_of,
)
from xscale.census.path_records import (
    Frame,
    Layers,
    LoopEnds,
    PathEnds,
    Returns,
    Use,
    use_of,
)
from xscale.census.values import (
    NONE,
    Arguments,
    Layer,
    Named,
    Symbol,
    Tensor,
    Value,
    compare,
    copy_of,
    loaded_names,
    local_names,
    output_of,
    parameters,
    producer_among,
    scales_in,
    sliced,
    stored_names,
    unpack,
)
from xscale.sites import ALL_REDUCE, CLAMP, FLATTEN, MARKER, PARAMETER, QUANTIZATIONS

_DEEPEST_CALL = 8


class Path:
    """One path: its choices, and the uses of the scale.

    ``script`` gives the first choices; later ones are true. ``root`` is the call whose
    scale is followed: a producer, or a call that returns ``result``. If it is None, a
    parameter is followed. ``asked`` says whether ``root`` may have made a transposed
    scale, even if no use is seen. ``layers`` holds the known attributes of projections,
    to find out whether a path can be taken. ``into_methods`` says whether methods that
    receive the scale are run as well.
    """

    def __init__(
        self,
        modules: Modules,
        script: Sequence[bool],
        root: ast.Call | None = None,
        result: Value | None = None,
        layers: Layers | None = None,
        into_methods: bool = True,
    ) -> None:
        self._into_methods = into_methods and root is not None
        self.uses: list[Use] = []
        self.asked = False
        self.taken: list[bool] = []
        self._modules = modules
        self._script = script
        self._root = root
        self._result = result
        self._layers = layers
        self._in_root = False
        self._root_made = False
        self._known: dict[str, bool] = {}

    def assume(self, test: ast.expr, truth: bool, frame: Frame) -> None:
        """Assume the result of an enclosing ``if`` statement's test."""
        if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
            self.assume(test.operand, not truth, frame)
        elif isinstance(test, ast.BoolOp):
            if isinstance(test.op, ast.And) == truth:
                for part in test.values:
                    self.assume(part, truth, frame)
        else:
            value = self._value(test, frame)
            if isinstance(value, Symbol):
                self._known[value.text] = truth != value.negated
            elif isinstance(value, Imported):
                self._known[repr(value)] = truth

    def holds(self, test: ast.expr, frame: Frame) -> bool:
        """Whether a test is true on this path."""
        return self._truth(self._value(test, frame))

    def block(self, body: Sequence[ast.stmt], frame: Frame) -> None:
        """Run statements. Raises PathEnds, LoopEnds and Returns."""
        for statement in body:
            self._statement(statement, frame)

    def use(self, by: str, value: Value, at: str = "") -> None:
        """Record that a scale is passed on; if a call is followed, this ends the
        path."""
        for scale in scales_in(value):
            known = frozenset() if self._root else frozenset(self._known.items())
            self.uses.append(use_of(by, scale, at, known))
        if self.uses and self._root is not None:
            raise PathEnds

    def _decide(self, key: str) -> bool:
        if key not in self._known:
            at = len(self.taken)
            self._known[key] = self._script[at] if at < len(self._script) else True
            self.taken.append(self._known[key])
        return self._known[key]

    def _truth(self, value: Value) -> bool:
        if isinstance(value, Symbol):
            return self._decide(value.text) != value.negated
        if isinstance(value, Const):
            return bool(value.value)
        if isinstance(value, tuple):
            return bool(value)
        return isinstance(value, Tensor | Kernel | Function | Layer) or self._decide(
            repr(value)
        )

    def _statement(self, node: ast.stmt, frame: Frame) -> None:
        if isinstance(node, ast.Assign):
            value = self._value(node.value, frame)
            for target in node.targets:
                self._bind(target, value, frame)
        elif isinstance(node, ast.AnnAssign) and node.value is not None:
            self._bind(node.target, self._value(node.value, frame), frame)
        elif isinstance(node, ast.AugAssign):
            self._bind(node.target, self._opaque(node, frame), frame)
        elif isinstance(node, ast.Expr):
            self._value(node.value, frame)
        elif isinstance(node, ast.Return):
            raise Returns(self._value(node.value, frame) if node.value else NONE)
        elif isinstance(node, ast.Raise):
            raise PathEnds
        elif isinstance(node, ast.Break | ast.Continue):
            raise LoopEnds
        elif isinstance(node, ast.For | ast.AsyncFor | ast.While):
            self._loop(node, frame)
        else:
            self._branch(node, frame)

    def _loop(self, node: ast.For | ast.AsyncFor | ast.While, frame: Frame) -> None:
        """Run the body once or not at all."""
        here = f"{frame.module.path}:{node.lineno}"
        if not isinstance(node, ast.While):
            self._value(node.iter, frame)
            self._bind(node.target, Symbol(f"item at {here}"), frame)
        try:
            if self._decide(f"{here} loops"):
                self.block(node.body, frame)
            self.block(node.orelse, frame)
        except LoopEnds:
            return

    def _branch(self, node: ast.stmt, frame: Frame) -> None:
        here = f"{frame.module.path}:{node.lineno}"
        if isinstance(node, ast.If) and self._is_beside(node, frame):
            for name in stored_names(node):
                frame.names[name] = Symbol(f"{name} after {here}")
        elif isinstance(node, ast.If):
            truth = self._truth(self._value(node.test, frame))
            self.block(node.body if truth else node.orelse, frame)
        elif isinstance(node, ast.With | ast.AsyncWith):
            for item in node.items:
                value = self._value(item.context_expr, frame)
                if item.optional_vars is not None:
                    self._bind(item.optional_vars, value, frame)
            self.block(node.body, frame)
        elif isinstance(node, ast.Try):
            for handler in node.handlers:
                if self._decide(f"{here} raises for {handler.lineno}"):
                    self.block(handler.body, frame)
                    break
            else:
                self.block([*node.body, *node.orelse], frame)
            self.block(node.finalbody, frame)
        elif isinstance(node, ast.Match):
            for case in node.cases:
                if self._decide(f"{here} matches {case.pattern.lineno}"):
                    self.block(case.body, frame)
                    break

    def _is_beside(self, node: ast.If, frame: Frame) -> bool:
        """Whether a branch in the site's own function does not touch the scale.

        Such functions have many branches, and each one would double the paths. A branch
        that gives the scale's name to something else touches it.
        """
        names = frame.names
        if self._picks_a_kernel(node, frame):
            return False
        return (
            self._root_made
            and (frame.depth == 0 or frame.owner is not None)
            and not any(
                scales_in(names.get(n, NONE))
                for n in loaded_names(node) | stored_names(node)
            )
        )

    def _picks_a_kernel(self, node: ast.If, frame: Frame) -> bool:
        """Whether a branch names a kernel: then it decides where the scale goes."""
        meanings = (self._modules.meaning(frame.module, n) for n in loaded_names(node))
        return any(isinstance(meaning, Kernel) for meaning in meanings)

    def _bind(self, target: ast.expr, value: Value, frame: Frame) -> None:
        if isinstance(target, ast.Name):
            frame.names[target.id] = value
        elif isinstance(target, ast.Starred):
            self._bind(target.value, value, frame)
        elif isinstance(target, ast.Tuple | ast.List):
            for part, item in zip(target.elts, unpack(target.elts, value), strict=True):
                self._bind(part, item, frame)
        elif isinstance(target, ast.Attribute):
            owner = self._value(target.value, frame)
            self._set(owner, Const(target.attr), value, _place(frame, target))
        elif isinstance(target, ast.Subscript):
            owner = self._value(target.value, frame)
            key = self._value(target.slice, frame)
            if not isinstance(owner, Named):
                self.use("an item", value, _place(frame, target))
            elif isinstance(key, Const) and isinstance(key.value, str):
                owner.items[key.value] = value
            else:
                owner.opaque = True

    def _set(self, owner: Value, name: Value, value: Value, at: str) -> None:
        """``owner.name = value``, in any spelling."""
        name, value = self._resolved(name), self._resolved(value)
        if not isinstance(owner, Tensor):
            self.use("an attribute", value, at)
        elif not isinstance(name, Const):
            owner.marked = None
        elif name.value == MARKER:
            owner.marked = self._truth(value)

    def _value(self, node: ast.expr, frame: Frame) -> Value:
        if isinstance(node, ast.Constant):
            return Const(node.value)
        if isinstance(node, ast.Name):
            if node.id in frame.names:
                return frame.names[node.id]
            return self._modules.meaning(frame.module, node.id) or Symbol(node.id)
        if isinstance(node, ast.Tuple | ast.List):
            return tuple(self._items(node.elts, frame))
        if isinstance(node, ast.Attribute):
            owner = self._value(node.value, frame)
            return self._get(owner, Const(node.attr))
        if isinstance(node, ast.Subscript):
            return self._subscript(node, frame)
        if isinstance(node, ast.Call):
            return self._call(node, frame)
        if isinstance(node, ast.IfExp):
            truth = self._truth(self._value(node.test, frame))
            return self._value(node.body if truth else node.orelse, frame)
        if isinstance(node, ast.NamedExpr):
            value = self._value(node.value, frame)
            self._bind(node.target, value, frame)
            return value
        return self._operator(node, frame)

    def _operator(self, node: ast.expr, frame: Frame) -> Value:
        if isinstance(node, ast.BoolOp):
            for part in node.values[:-1]:
                value = self._value(part, frame)
                if self._truth(value) != isinstance(node.op, ast.And):
                    return value
            return self._value(node.values[-1], frame)
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            value = self._value(node.operand, frame)
            if isinstance(value, Symbol):
                return Symbol(value.text, not value.negated)
            return Const(not self._truth(value))
        if isinstance(node, ast.Compare) and len(node.ops) == 1:
            left = self._value(node.left, frame)
            right = self._value(node.comparators[0], frame)
            return compare(left, node.ops[0], right)
        if isinstance(node, ast.Await):
            return self._value(node.value, frame)
        if isinstance(node, ast.Yield | ast.YieldFrom) and node.value is not None:
            self.use("yield", self._value(node.value, frame), _place(frame, node))
        return self._opaque(node, frame)

    def _opaque(self, node: ast.AST, frame: Frame) -> Symbol:
        """Any other node; its parts are run for their effects."""
        if isinstance(node, ast.Lambda | ast.comprehension):
            return Symbol(ast.dump(node))
        parts = [type(node).__name__]
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.expr):
                parts.append(repr(self._value(child, frame)))
            elif not isinstance(child, ast.expr_context):
                parts.append(repr(self._opaque(child, frame)))
        return Symbol(f"({' '.join(parts)})")

    def _items(self, nodes: Sequence[ast.expr], frame: Frame) -> Iterator[Value]:
        for node in nodes:
            if not isinstance(node, ast.Starred):
                yield self._value(node, frame)
                continue
            value = self._value(node.value, frame)
            yield from value if isinstance(value, tuple) else [Symbol(f"*{value!r}")]

    def _get(self, owner: Value, name: Value) -> Value:
        """``owner.name``, in any spelling."""
        name = self._resolved(name)
        if isinstance(name, Const) and isinstance(name.value, str):
            if isinstance(owner, Imported):
                return self._modules.member(owner, name.value)
            if isinstance(owner, Layer):
                return self._of_layer(owner, name.value, None)
            if self._layers and name.value in self._layers.projections:
                return Layer(f"{owner!r}.{name.value}")
            if isinstance(owner, Tensor) and name.value == MARKER:
                if owner.marked is not None:
                    return Const(owner.marked)
            elif isinstance(owner, Tensor):
                return owner.derived(name.value)
            return Symbol(f"{owner!r}.{name.value}")
        return Symbol(f"{owner!r}.{name!r}")

    def _of_layer(self, layer: Layer, name: str, default: Value | None) -> Value:
        """An attribute of a projection; if it is missing without a default, the path
        ends."""
        if self._layers is not None and self._layers.get(layer, name) is False:
            if default is None:
                raise PathEnds
            return default
        return Symbol(f"{layer!r}.{name}")

    def _subscript(self, node: ast.Subscript, frame: Frame) -> Value:
        owner, key = self._value(node.value, frame), self._value(node.slice, frame)
        if isinstance(owner, tuple) and isinstance(node.slice, ast.Slice):
            return sliced(owner, node.slice)
        index = key.value if isinstance(key, Const) else None
        if isinstance(owner, tuple) and isinstance(index, int) and index < len(owner):
            return owner[index]
        if isinstance(owner, Named) and isinstance(index, str):
            return owner.items.get(index, Symbol(f"argument {index}"))
        return Symbol(f"{owner!r}[{key!r}]")

    def _call(self, node: ast.Call, frame: Frame) -> Value:
        callee = self._callee(node.func, frame)
        given = self._arguments(node, frame)
        if node is not self._root:
            return self._run(callee, given, node, frame)
        if self._result is not None:
            self._root_made = True
            given_back = copy_of(self._result)
            self.asked |= any(s.transposed is not False for s in scales_in(given_back))
            return given_back
        self._in_root = True
        try:
            return self._run(callee, given, node, frame)
        finally:
            self._in_root, self._root_made = False, True

    def _callee(self, node: ast.expr, frame: Frame) -> Value | _Method:
        if not isinstance(node, ast.Attribute):
            return self._value(node, frame)
        owner = self._value(node.value, frame)
        if isinstance(owner, Tensor):
            return _Method(owner, node.attr)
        if isinstance(owner, Named) and node.attr not in ("get", "items", "keys"):
            owner.opaque = True
        return self._get(owner, Const(node.attr))

    def _arguments(self, node: ast.Call, frame: Frame) -> Arguments:
        positional = list(self._items(node.args, frame))
        opaque = any(repr(value).startswith("*") for value in positional)
        named: dict[str, Value] = {}
        for keyword in node.keywords:
            value = self._value(keyword.value, frame)
            if keyword.arg is not None:
                named[keyword.arg] = value
            elif isinstance(value, Named):
                named.update(value.items)
                opaque |= value.opaque
            else:
                opaque = True
        return Arguments(positional, named, opaque)

    def _run(
        self, callee: Value | _Method, given: Arguments, node: ast.Call, frame: Frame
    ) -> Value:
        if isinstance(callee, _Method):
            return callee.scale.derived(callee.name, given.positional)
        if isinstance(callee, Kernel):
            return self._kernel(callee.name, given, node, frame)
        if self._in_root and node is self._root and not producer_among(given.all()):
            # Not one of the kernels, but given the layout to write.
            name = ast.unparse(node.func)
            transposed = self._transposed(given.named, given.opaque)
            return output_of(name, self._new_scale(node, name, transposed))
        if isinstance(callee, Symbol) and hasattr(builtins, callee.text):
            return self._builtin(callee.text, given.positional, _place(frame, node))
        values = given.all()
        kernel = producer_among(values)
        result = Symbol(f"{callee!r}({', '.join(map(repr, values))})")
        about_layers = any(isinstance(value, Layer) for value in values)
        if not kernel and not about_layers and not scales_in(values):
            return result
        target = self._resolved(callee)
        if self._layers and about_layers:
            self._layers.record_call(target, values)
        if isinstance(target, Function) and frame.depth < _DEEPEST_CALL:
            return self._inline(target, given, frame.depth + 1)
        method = self._method(node.func, frame) if self._into_methods else None
        if method is not None and frame.depth < _DEEPEST_CALL:
            owner, function = method
            given.positional.insert(0, Symbol("self"))
            return self._inline(function, given, frame.depth + 1, owner)
        first = given.positional[0] if given.positional else NONE
        library, _, name = repr(callee).rpartition(".")
        if library == "torch" and isinstance(first, Tensor):
            return first.derived(name, given.positional[1:])
        if library in ("torch", "inspect"):
            return result
        if kernel:
            return output_of(kernel, self._new_scale(node, kernel, None))
        # A consumer may choose its GEMM first; then only the value names it.
        by = _name_of(node.func) if self._root else repr(target)
        self.use(by, values, _place(frame, node))
        return result

    @staticmethod
    def _method(node: ast.expr, frame: Frame) -> tuple[ast.ClassDef, Function] | None:
        """The method that ``self.name(...)`` runs: the class's own method, or
        ``forward`` of the one class in the module that ``name`` is an instance of."""
        if not (isinstance(node, ast.Attribute) and ast.unparse(node.value) == "self"):
            return None
        module, owner = frame.module, frame.owner
        made = module.made(node.attr)
        if owner is not None and (function := method_of(owner, node.attr)):
            return owner, Function(node.attr, module, function)
        if len(made) == 1 and (name := next(iter(made))) in module.classes:
            owner = module.classes[name]
            if function := method_of(owner, "forward"):
                return owner, Function("forward", module, function)
        return None

    def _resolved(self, value: Value) -> Value:
        return self._modules.resolve(value) if isinstance(value, Imported) else value

    def _kernel(
        self, kernel: str, given: Arguments, node: ast.Call, frame: Frame
    ) -> Value:
        if kernel not in QUANTIZATIONS:
            self.use(kernel, given.all(), _place(frame, node))
            return Symbol(f"output of {kernel} at {node.lineno}")
        names = QUANTIZATIONS[kernel]
        bound = dict(zip(names, given.positional, strict=False)) | given.named
        if kernel == CLAMP and bound.get("dtype_quant", NONE) == NONE:
            return Symbol(f"unquantized output of {kernel} at {node.lineno}")
        transposed = self._transposed(bound, given.opaque)
        output = output_of(kernel, self._new_scale(node, kernel, transposed))
        if kernel == ALL_REDUCE and self._truth(bound.get("emit_bf16", Const(False))):
            assert isinstance(output, tuple)
            return (*output, Symbol(f"unquantized output at {node.lineno}"))
        return output

    def _transposed(self, bound: Mapping[str, Value], opaque: bool) -> bool | None:
        """Whether a kernel is asked for transposed bytes; None if the source leaves it
        open."""
        if PARAMETER in bound:
            return self._truth(bound[PARAMETER])
        return None if opaque else False

    def _new_scale(
        self, node: ast.Call, kernel: str, transposed: bool | None
    ) -> Tensor:
        """AITER's flatten has returned transposed bytes with either strides, depending
        on the release. Its all-reduce always returns honest strides; the others never
        do. Nothing is known about other calls."""
        name = f"scale at {node.lineno}"
        self.asked |= self._in_root and transposed is not False
        by_columns: bool | None = False
        if transposed and kernel == FLATTEN:
            by_columns = self._decide(f"{name} has honest strides")
        elif transposed and kernel == ALL_REDUCE:
            by_columns = True
        elif transposed and kernel not in QUANTIZATIONS:
            by_columns = None
        return Tensor(name, self._in_root, transposed, transposed, by_columns)

    def _builtin(self, name: str, given: Sequence[Value], at: str) -> Value:
        if name == "setattr" and len(given) == 3:
            self._set(given[0], given[1], given[2], at)
            return NONE
        if name == "hasattr" and self._layers and isinstance(given[0], Layer):
            has = self._layers.get(given[0], _text(self._resolved(given[1])))
            return Symbol(f"{name}({given!r})") if has is None else Const(has)
        if name == "getattr" and isinstance(given[0], Layer):
            attribute = _text(self._resolved(given[1]))
            return self._of_layer(given[0], attribute, (*given[2:], None)[0])
        if name == "getattr" and len(given) > 1:
            return self._get(given[0], given[1])
        if name == "hasattr" and list(map(self._resolved, given[1:])) == [
            Const(MARKER)
        ]:
            return self._get(given[0], given[1])
        if name in ("tuple", "list") and given and isinstance(given[0], tuple):
            return given[0]
        is_known = bool(given) and isinstance(given[0], tuple | Tensor)
        if name == "isinstance" and is_known and given[1:] == [Symbol("tuple")]:
            return Const(isinstance(given[0], tuple))
        return Symbol(f"{name}({', '.join(map(repr, given))})")

    def _inline(
        self,
        function: Function,
        given: Arguments,
        depth: int,
        owner: ast.ClassDef | None = None,
    ) -> Value:
        names = {**local_names(function.node), **parameters(function.node, given)}
        try:
            frame = Frame(function.module, names, depth, owner)
            self.block(function.node.body, frame)
        except Returns as returned:
            return returned.value
        return NONE


@dataclass(frozen=True)
class _Method:
    scale: Tensor
    name: str


def _text(value: Value) -> str:
    """A name that the source states; otherwise a text that cannot be a name."""
    return str(value.value) if isinstance(value, Const) else f"<{value!r}>"


def _place(frame: Frame, node: ast.expr) -> str:
    return f"{frame.module.path}:{node.lineno}"


def _name_of(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else ast.unparse(node)
