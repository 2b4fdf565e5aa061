"""Runs one path through a function, and records the uses of a scale.

Calls that pass a scale or a kernel to another function of the tree are run as well. A
scale that goes into an expression that is not understood is lost; nothing is guessed.
"""

from __future__ import annotations

import ast
import builtins
from collections.abc import Mapping, Sequence

from xscale.census.evaluator import Evaluator
from xscale.census.modules import Const, Function, Imported, Kernel, Modules, method_of
from xscale.census.path_records import (
    Frame,
    Method,
    PathEnds,
    Returns,
    Use,
    local_names,
    parameters,
    use_of,
)
from xscale.census.recall import state_of
from xscale.census.values import (
    NONE,
    Arguments,
    Symbol,
    Tensor,
    Value,
    copy_of,
    loaded_names,
    output_of,
    producer_among,
    scales_in,
    stored_names,
)
from xscale.sites import ALL_REDUCE, CLAMP, FLATTEN, MARKER, PARAMETER, QUANTIZATIONS

_DEEPEST_CALL = 8


class Path(Evaluator):
    """One path: its choices, and the uses of the scale.

    ``root`` is the call whose scale is followed: a producer, or a call that returns
    ``result``. If it is None, a parameter is followed. ``asked`` says whether ``root``
    may have made a transposed scale, even if no use is seen. ``into_methods`` says
    whether methods that receive the scale are run as well.
    """

    def __init__(
        self,
        modules: Modules,
        script: Sequence[bool],
        root: ast.Call | None = None,
        result: Value | None = None,
        into_methods: bool = True,
    ) -> None:
        super().__init__(modules, script)
        self._into_methods = into_methods and root is not None
        self.uses: list[Use] = []
        self.asked = False
        self._root = root
        self._result = result
        self._in_root = False
        self._root_made = False

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

    def use(self, by: str, value: Value, at: str = "") -> None:
        """Record that a scale is passed on; if a call is followed, this ends the
        path."""
        for scale in scales_in(value):
            known = frozenset() if self._root else frozenset(self._known.items())
            self.uses.append(use_of(by, scale, at, known))
        if self.uses and self._root is not None:
            raise PathEnds

    def _state(self) -> tuple[bool, bool]:
        return self.asked, self._root_made

    def _resume(self, state: object) -> None:
        assert isinstance(state, tuple)
        self.asked, self._root_made = state
        self._has_met |= self._root_made

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

    def _run(
        self, callee: Value | Method, given: Arguments, node: ast.Call, frame: Frame
    ) -> Value:
        if node is not self._root:
            return self._result_of(callee, given, node, frame)
        if self._result is not None:
            self._root_made = True
            given_back = copy_of(self._result)
            self.asked |= any(s.transposed is not False for s in scales_in(given_back))
            return given_back
        before = tuple(zip(self._keys, self.taken, strict=True))
        self._in_root = True
        try:
            made = self._result_of(callee, given, node, frame)
        finally:
            self._in_root, self._root_made = False, True
        if frame.depth == 0:
            self._meet(before, made, frame)
        return made

    def _meet(self, before: object, made: Value, frame: Frame) -> None:
        """Whatever the call did to get its result, all that comes after it depends on
        the result, on what it did to other values, and on what was decided. Ends the
        path if that was run already."""
        self._has_met = True
        state = before, self.asked, state_of(made, *frame.names.values())
        if paths := self.meetings.meet(self.taken, state, self._known):
            self.weight = paths
            raise PathEnds

    def _result_of(
        self, callee: Value | Method, given: Arguments, node: ast.Call, frame: Frame
    ) -> Value:
        if isinstance(callee, Method):
            return callee.of.derived(callee.name, given.all())
        if isinstance(callee, Kernel):
            return self._kernel(callee.name, given, node, frame)
        if self._in_root and node is self._root and not producer_among(given.all()):
            # Not one of the kernels, but given the layout to write.
            name = ast.unparse(node.func)
            transposed = self._transposed(given.named, given.opaque)
            return output_of(name, self._new_scale(node, name, transposed))
        if isinstance(callee, Symbol) and hasattr(builtins, callee.text):
            return self._builtin(callee.text, given.positional, frame.place(node))
        values = given.all()
        kernel = producer_among(values)
        result = Symbol(f"{callee!r}({', '.join(map(repr, values))})")
        if not kernel and not scales_in(values):
            return result
        target = self._resolved(callee)
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
            return first.derived(name, values[1:])
        if library in ("torch", "inspect"):
            return result
        if kernel:
            return output_of(kernel, self._new_scale(node, kernel, None))
        # A consumer may choose its GEMM first; then only the value names it.
        by = _name_of(node.func) if self._root else repr(target)
        self.use(by, values, frame.place(node))
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

    def _kernel(
        self, kernel: str, given: Arguments, node: ast.Call, frame: Frame
    ) -> Value:
        if kernel not in QUANTIZATIONS:
            self.use(kernel, given.all(), frame.place(node))
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


def _name_of(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else ast.unparse(node)
