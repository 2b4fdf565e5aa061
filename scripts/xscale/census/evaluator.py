"""Runs statements and expressions of Python source, with mostly unknown values.

An expression that is not understood becomes a Symbol. A condition that the source
leaves open is a choice: a path is one sequence of choices. Subclasses say what a call
means and which values are of interest: the census follows a scale, and ``kernels`` the
buffer that an AITER wrapper returns.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from xscale.census.modules import Const, Function, Imported, Kernel, Modules
from xscale.census.path_records import Frame, LoopEnds, Method, PathEnds, Returns
from xscale.census.recall import Kept, Meetings, Steps, fresh, is_settled
from xscale.census.values import (
    NONE,
    Arguments,
    Named,
    Symbol,
    Tensor,
    Value,
    compare,
    sliced,
    stored_names,
    unpack,
)
from xscale.sites import MARKER


class Evaluator:
    """One path. ``script`` gives the first choices; later ones are true. ``taken`` has
    all that were made.

    ``steps`` are the expressions that it runs; see ``recall``. The first of them are
    those of another path, up to the first choice in which the two differ.
    """

    def __init__(self, modules: Modules, script: Sequence[bool]) -> None:
        self.taken: list[bool] = []
        self.steps = Steps()
        self.meetings = Meetings()
        self.weight = 1
        """How many paths this one stands for."""
        self._has_met = False
        self._keys: list[str] = []
        self._modules = modules
        self._script = script
        self._known: dict[str, bool] = {}

    def use(self, by: str, value: Value, at: str = "") -> None:
        """A value is passed on to something that is not run."""

    def holds(self, test: ast.expr, frame: Frame) -> bool:
        """Whether a test is true on this path."""
        return self._truth(self._value(test, frame))

    def block(self, body: Sequence[ast.stmt], frame: Frame) -> None:
        """Run statements. Raises PathEnds, LoopEnds and Returns."""
        for statement in body:
            self._statement(statement, frame)

    def _run(
        self, callee: Value | Method, given: Arguments, node: ast.Call, frame: Frame
    ) -> Value:
        """The result of a call."""
        raise NotImplementedError

    def _is_beside(self, node: ast.If, frame: Frame) -> bool:
        """Whether a branch is of no interest; then its names become unknown."""
        return False

    def _decide(self, key: str) -> bool:
        if self._has_met:
            self.meetings.asks(key)
        if key not in self._known:
            at = len(self.taken)
            self._choose(key, self._script[at] if at < len(self._script) else True)
        return self._known[key]

    def _choose(self, key: str, truth: bool) -> None:
        self._known[key] = truth
        self._keys.append(key)
        self.taken.append(truth)

    def _truth(self, value: Value) -> bool:
        if isinstance(value, Symbol):
            return self._decide(value.text) != value.negated
        if isinstance(value, Const):
            return bool(value.value)
        if isinstance(value, tuple):
            return bool(value)
        return isinstance(value, Tensor | Kernel | Function) or self._decide(
            repr(value)
        )

    def _resolved(self, value: Value) -> Value:
        return self._modules.resolve(value) if isinstance(value, Imported) else value

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
        here = frame.place(node)
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
        here = frame.place(node)
        if isinstance(node, ast.If) and self._is_beside(node, frame):
            for name in stored_names(node):
                frame.names[name] = Symbol(f"{name} after {here}")
        elif isinstance(node, ast.If):
            truth = self.holds(node.test, frame)
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
            self._set(owner, Const(target.attr), value, frame.place(target))
        elif isinstance(target, ast.Subscript):
            owner = self._value(target.value, frame)
            key = self._value(target.slice, frame)
            if not isinstance(owner, Named):
                self.use("an item", value, frame.place(target))
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
            value = frame.names.get(node.id)
            if value is None:
                value = self._modules.meaning(frame.module, node.id)
            return Symbol(node.id) if value is None else value
        step = self.steps.next(node, len(self.taken))
        if (kept := step.kept) is not None:
            self.steps.at = kept.next
            for key, truth in kept.decided:
                self._choose(key, truth)
            self._resume(kept.state)
            return fresh(kept.value)
        settled = is_settled(node, frame.names)
        value = self._run_value(node, frame)
        if settled:
            keys, taken = self._keys[step.since :], self.taken[step.since :]
            decided = tuple(zip(keys, taken, strict=True))
            step.kept = Kept(fresh(value), decided, self._state(), self.steps.at)
        return value

    def _state(self) -> object:
        """What a path knows besides its choices and names."""
        return None

    def _resume(self, state: object) -> None:
        """Continue with what :meth:`_state` returned."""

    def _run_value(self, node: ast.expr, frame: Frame) -> Value:
        run = _EXPRESSIONS.get(type(node))
        return run(self, node, frame) if run else self._opaque(node, frame)

    def _sequence(self, node: ast.Tuple | ast.List, frame: Frame) -> Value:
        return tuple(self._items(node.elts, frame))

    def _attribute(self, node: ast.Attribute, frame: Frame) -> Value:
        return self._get(self._value(node.value, frame), Const(node.attr))

    def _call(self, node: ast.Call, frame: Frame) -> Value:
        callee = self._callee(node.func, frame)
        return self._run(callee, self._arguments(node, frame), node, frame)

    def _conditional(self, node: ast.IfExp, frame: Frame) -> Value:
        truth = self.holds(node.test, frame)
        return self._value(node.body if truth else node.orelse, frame)

    def _named(self, node: ast.NamedExpr, frame: Frame) -> Value:
        value = self._value(node.value, frame)
        self._bind(node.target, value, frame)
        return value

    def _boolean(self, node: ast.BoolOp, frame: Frame) -> Value:
        for part in node.values[:-1]:
            value = self._value(part, frame)
            if self._truth(value) != isinstance(node.op, ast.And):
                return value
        return self._value(node.values[-1], frame)

    def _unary(self, node: ast.UnaryOp, frame: Frame) -> Value:
        if isinstance(node.op, ast.Not):
            value = self._value(node.operand, frame)
            if isinstance(value, Symbol):
                return Symbol(value.text, not value.negated)
            return Const(not self._truth(value))
        match node:
            case ast.UnaryOp(ast.USub(), ast.Constant(int(number))):
                return Const(-number)
        return self._opaque(node, frame)

    def _comparison(self, node: ast.Compare, frame: Frame) -> Value:
        if len(node.ops) > 1:
            return self._opaque(node, frame)
        left = self._value(node.left, frame)
        right = self._value(node.comparators[0], frame)
        return compare(left, node.ops[0], right)

    def _awaited(self, node: ast.Await, frame: Frame) -> Value:
        return self._value(node.value, frame)

    def _yielded(self, node: ast.Yield | ast.YieldFrom, frame: Frame) -> Value:
        if node.value is not None:
            self.use("yield", self._value(node.value, frame), frame.place(node))
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
        if not isinstance(name, Const) or not isinstance(name.value, str):
            return Symbol(f"{owner!r}.{name!r}")
        if isinstance(owner, Imported):
            return self._modules.member(owner, name.value)
        if isinstance(owner, Tensor) and name.value != MARKER:
            return owner.derived(name.value)
        if isinstance(owner, Tensor) and owner.marked is not None:
            return Const(owner.marked)
        return Symbol(f"{owner!r}.{name.value}")

    def _subscript(self, node: ast.Subscript, frame: Frame) -> Value:
        owner, key = self._value(node.value, frame), self._value(node.slice, frame)
        if isinstance(owner, tuple) and isinstance(node.slice, ast.Slice):
            return sliced(owner, node.slice)
        return self._item(owner, key)

    def _item(self, owner: Value, key: Value) -> Value:
        """``owner[key]``."""
        index = key.value if isinstance(key, Const) else None
        if isinstance(owner, tuple) and isinstance(index, int):
            if -len(owner) <= index < len(owner):
                return owner[index]
        elif isinstance(owner, Named) and isinstance(index, str):
            return owner.items.get(index, Symbol(f"argument {index}"))
        return Symbol(f"{owner!r}[{key!r}]")

    def _callee(self, node: ast.expr, frame: Frame) -> Value | Method:
        if not isinstance(node, ast.Attribute):
            return self._value(node, frame)
        owner = self._value(node.value, frame)
        if isinstance(owner, Tensor):
            return Method(owner, node.attr)
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


# By type: an expression is one of these thousands of times in a path.
_EXPRESSIONS: dict[type[ast.expr], Callable[[Evaluator, Any, Frame], Value]] = {
    ast.Tuple: Evaluator._sequence,
    ast.List: Evaluator._sequence,
    ast.Attribute: Evaluator._attribute,
    ast.Subscript: Evaluator._subscript,
    ast.Call: Evaluator._call,
    ast.IfExp: Evaluator._conditional,
    ast.NamedExpr: Evaluator._named,
    ast.BoolOp: Evaluator._boolean,
    ast.UnaryOp: Evaluator._unary,
    ast.Compare: Evaluator._comparison,
    ast.Await: Evaluator._awaited,
    ast.Yield: Evaluator._yielded,
    ast.YieldFrom: Evaluator._yielded,
}
