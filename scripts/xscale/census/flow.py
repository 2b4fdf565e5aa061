"""Follows an activation scale from the call that makes it to its uses.

A function is run once per path. A condition that the source leaves open is true on one
path and false on the next. It keeps its value along a path, so ``if gate: copy`` and
``if gate: ck`` are never mixed up.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TypeVar

from xscale.census.evaluator import Evaluator
from xscale.census.interpreter import Path
from xscale.census.modules import FunctionNode, Module, Modules
from xscale.census.path_records import (
    Frame,
    LoopEnds,
    PathEnds,
    Returns,
    Use,
    local_names,
)
from xscale.census.recall import Meetings, Steps
from xscale.census.shared import Shared
from xscale.census.values import (
    Tensor,
    Value,
    key_of,
    loaded_names,
    scales_in,
    stored_names,
)

_MOST_PATHS = 2000
_MOST_INTO_METHODS = 200


class TooManyPaths(Exception):
    """The code has too many branches to follow."""


@dataclass(frozen=True)
class Flow:
    """The uses of a scale on all paths together.

    ``asked``: on some path the scale is or may be made transposed, even if it is not
    used. ``returned``: values with the scale that return to the caller and are not
    among the uses.
    """

    uses: frozenset[Use]
    asked: bool
    returned: tuple[Value, ...] = ()


CALLER = "its caller"
_flows: Shared[Flow] = Shared()


def follow_call(
    modules: Modules,
    module: Module,
    function: FunctionNode | None,
    call: ast.Call,
    result: Value | None = None,
) -> Flow:
    """The first use of the scale that ``call`` makes, on every path from there.

    If ``result`` is given, the call returns it. Raises TooManyPaths.
    """
    given = None if result is None else key_of(result)
    asked = (module, function, call, given)
    return _flows.get(
        modules, asked, lambda: _follow_call(modules, module, function, call, result)
    )


def _follow_call(
    modules: Modules,
    module: Module,
    function: FunctionNode | None,
    call: ast.Call,
    result: Value | None,
) -> Flow:
    blocks, conditions = continuation((function or module.tree).body, call)
    returned: dict[object, Value] = {}

    def run(path: Path) -> None:
        names = dict(local_names(function)) if function else {}
        frame = Frame(module, names, owner=module.owner_of(function))
        for test, truth in conditions:
            path.assume(test, truth, frame)
        for block in blocks:
            try:
                path.block(block, frame)
            except LoopEnds:
                continue
            except Returns as found:
                if scales_in(found.value):
                    returned.setdefault(key_of(found.value), found.value)
                line = function.lineno if function else 1
                path.use(CALLER, found.value, f"{module.path}:{line}")
                return

    try:
        flow = _on_all_paths(
            lambda script: Path(modules, script, call, result), run, _MOST_INTO_METHODS
        )
    except TooManyPaths:
        # Then do not follow calls of methods.
        returned.clear()

        def start(script: Sequence[bool]) -> Path:
            return Path(modules, script, call, result, into_methods=False)

        flow = _on_all_paths(start, run)
    return replace(flow, returned=tuple(returned.values()))


def follow_within(
    modules: Modules, module: Module, function: FunctionNode, call: ast.Call
) -> Flow:
    """The same, but from the start of the function: its decisions before the call then
    hold after it. Raises TooManyPaths.
    """

    def run(path: Path) -> None:
        frame = Frame(module, dict(local_names(function)))
        try:
            path.block(function.body, frame)
        except Returns as found:
            path.use(CALLER, found.value, f"{module.path}:{function.lineno}")

    return _on_all_paths(lambda script: Path(modules, script, call), run)


def follow_parameter(
    modules: Modules,
    module: Module,
    function: FunctionNode,
    parameter: str,
    given: Tensor,
) -> Flow:
    """Every use, on every path, of the scale ``given`` as ``parameter``.

    Raises TooManyPaths.
    """
    asked = (module, function, parameter, given.key)
    return _flows.get(
        modules,
        asked,
        lambda: _follow_parameter(modules, module, function, parameter, given),
    )


def _follow_parameter(
    modules: Modules,
    module: Module,
    function: FunctionNode,
    parameter: str,
    given: Tensor,
) -> Flow:
    def run(path: Path) -> None:
        names = {**local_names(function), parameter: replace(given)}
        frame = Frame(module, names)
        try:
            path.block(function.body, frame)
        except Returns:
            return

    return _on_all_paths(lambda script: Path(modules, script), run)


P = TypeVar("P", bound=Evaluator)


def every_path(start: Callable[[Sequence[bool]], P], most: int) -> Iterator[P]:
    """Each path in turn, to be run by the caller: it repeats the previous one up to its
    last open choice, which it reverses. Raises TooManyPaths for more than ``most``
    paths, counting those that need not be run."""
    script: list[bool] = []
    steps, meetings = Steps(), Meetings()
    paths = 0
    while True:
        path = start(script)
        path.steps, path.meetings = steps, meetings
        yield path
        paths += path.weight
        taken = [*path.taken]
        while taken and not taken[-1]:
            taken.pop()
        script = [*taken[:-1], False] if taken else []
        meetings.ended(path.taken, script)
        if paths + bool(taken) > most:
            raise TooManyPaths
        if not taken:
            return
        steps.start_again(len(taken) - 1)


def _on_all_paths(
    start: Callable[[Sequence[bool]], Path],
    run: Callable[[Path], None],
    most: int = _MOST_PATHS,
) -> Flow:
    uses: set[Use] = set()
    asked = False
    for path in every_path(start, most):
        with suppress(PathEnds):
            run(path)
        uses.update(path.uses)
        asked |= path.asked
    return Flow(frozenset(uses), asked)


def continuation(
    body: Sequence[ast.stmt], call: ast.Call
) -> tuple[list[Sequence[ast.stmt]], list[tuple[ast.expr, bool]]]:
    """The statements from the one that contains ``call`` to the end, block by block.

    Also the tests of the enclosing ``if`` statements and their results. A test is left
    out if one of its names is assigned in between.
    """
    at = next(i for i, statement in enumerate(body) if _holds(statement, call))
    outer = body[at]
    for name, inner in _blocks(outer):
        if any(_holds(statement, call) for statement in inner):
            blocks, conditions = continuation(inner, call)
            if isinstance(outer, ast.If) and not _tests_what_it_stores(outer):
                conditions.append((outer.test, name == "body"))
            return [*blocks, body[at + 1 :]], conditions
    return [body[at:]], []


def _blocks(node: ast.AST) -> Iterator[tuple[str, list[ast.stmt]]]:
    for name, value in ast.iter_fields(node):
        if name in ("handlers", "cases"):
            yield from (block for part in value for block in _blocks(part))
        elif isinstance(value, list) and value and isinstance(value[0], ast.stmt):
            yield name, value


def _holds(node: ast.AST, call: ast.Call) -> bool:
    return any(inner is call for inner in ast.walk(node))


def _tests_what_it_stores(node: ast.If) -> bool:
    return bool(loaded_names(node.test) & stored_names(node))
