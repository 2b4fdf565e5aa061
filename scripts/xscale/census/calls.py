"""Finds where a module mentions a kernel, and reads its calls."""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from xscale.census.modules import Kernel, Module, Modules, Place
from xscale.census.path_records import defaults
from xscale.sites import (
    CATALOGUE,
    CLAMP,
    GEMM,
    GROUP_SIZE,
    PARAMETER,
    QUANTIZATIONS,
    UNKNOWN_SITE,
)


@dataclass(frozen=True)
class Reference:
    """A mention of a kernel, or a call that selects a scale's layout; ``kernel`` is the
    name of the callee in the source."""

    kernel: str
    at: Place

    @property
    def is_producer(self) -> bool:
        return self.kernel != GEMM


def references(modules: Modules, module: Module) -> Iterator[Reference]:
    """All mentions except imports and definitions, in no particular order."""
    aliases = (
        local
        for local, targets in module.imports.items()
        if any(member in modules.kernels for _, member in targets)
    )
    for name in {*modules.kernels, *aliases}:
        for place in module.reads.get(name, ()):
            meaning = modules.meaning_of(module, place.node)
            if isinstance(meaning, Kernel) and _makes_a_scale(meaning.name, place):
                yield Reference(meaning.name, place)
    yield from _other_calls_with_parameter(modules, module)


def _makes_a_scale(kernel: str, place: Place) -> bool:
    """Whether the call may make block scales."""
    call = place.call
    if kernel == GEMM or call is None:
        return True
    given = arguments(Reference(kernel, place), call)
    if kernel == CLAMP:
        quantizes = given.get("dtype_quant", ast.Constant(None))
        has_rest = any(k.arg is None for k in call.keywords)
        return has_rest or not _is_constant(quantizes, None)
    return not _is_per_token(place, given)


def _is_per_token(place: Place, given: Mapping[str, ast.expr]) -> bool:
    """Whether one group is a whole row of the input: one scale per token."""
    size, names = given.get("group_size"), ("inp1", "x", "input_")
    rows = next((ast.unparse(given[n]) for n in names if n in given), None)
    if size is None or rows is None or place.function is None:
        return False
    last = {f"{rows}.shape[-1]", f"{rows}.size(-1)", f"{rows}.size()[-1]"}
    if not isinstance(size, ast.Name):
        return ast.unparse(size) in last
    if any(
        a.arg == size.id for a in ast.walk(place.function) if isinstance(a, ast.arg)
    ):
        return False
    found = list(_bound_to(place.function, size.id))
    return bool(found) and all(value in last for value in found)


def _bound_to(function: ast.AST, name: str) -> Iterator[str]:
    """The values assigned to a name, as text. Unpacking a shape gives ``a.shape[-1]``
    for its last element; any other store gives a question mark."""
    stored = 0
    for node in ast.walk(function):
        if isinstance(node, ast.Name) and node.id == name:
            stored += isinstance(node.ctx, ast.Store)
        if not isinstance(node, ast.Assign):
            continue
        value = ast.unparse(node.value)
        for target in node.targets:
            if ast.unparse(target) == name:
                stored -= 1
                yield value
            elif (
                isinstance(target, ast.Tuple)
                and ast.unparse(target.elts[-1]) == name
                and value.endswith((".shape", ".size()"))
            ):
                stored -= 1
                yield f"{value}[-1]"
    if stored:
        yield "?"


def _other_calls_with_parameter(
    modules: Modules, module: Module
) -> Iterator[Reference]:
    """Calls with the parameter whose callee is not a kernel."""
    for places in module.reads.values():
        for place in places:
            call = place.call
            if call is None or call.func is not place.node:
                continue
            order = next((k.value for k in call.keywords if k.arg == PARAMETER), None)
            if order is None or _passes_through(place, call, order):
                continue
            values = (place.node, *call.args)
            if not any(
                isinstance(modules.meaning_of(module, v), Kernel) for v in values
            ):
                yield Reference(ast.unparse(call.func), place)


def _passes_through(place: Place, call: ast.Call, order: ast.expr) -> bool:
    """Whether the function only passes on its caller's request or callee; then the
    caller is examined instead."""
    if place.function is None:
        return False
    declared = place.function.args
    named = (*declared.posonlyargs, *declared.args, *declared.kwonlyargs)
    names = {a.arg for a in named}
    if isinstance(call.func, ast.Name) and call.func.id in names:
        return True
    default = defaults(place.function).get(PARAMETER)
    return (
        isinstance(order, ast.Name)
        and order.id == PARAMETER
        and default is not None
        and default.value is False
    )


def _is_constant(node: ast.expr | None, value: object) -> bool:
    return isinstance(node, ast.Constant) and node.value is value


def arguments(reference: Reference, call: ast.Call) -> dict[str, ast.expr]:
    """The kernel's arguments in the call, also if an adapter is called."""
    at = 0 if reference.at.node is call.func else call.args.index(reference.at.node) + 1
    named = {k.arg: k.value for k in call.keywords if k.arg is not None}
    names = QUANTIZATIONS.get(reference.kernel, ())
    return dict(zip(names, call.args[at:], strict=False)) | named


def sites_of(
    reference: Reference, call: ast.Call, scopes: Sequence[str], fed: Collection[str]
) -> list[str]:
    """The catalogue ids of a producing call whose result goes to ``fed``.

    ``scopes`` are the call's own and those that the result was followed to. More than
    one id is returned if one call covers several sites.
    """
    given = arguments(reference, call)
    size = given.get("group_size", ast.Constant(GROUP_SIZE))
    if not (isinstance(size, ast.Constant) and size.value == GROUP_SIZE):
        return [UNKNOWN_SITE]
    asked = given.get("output_unquantized_inp1", ast.Constant(False))
    unquantized = bool(asked.value) if isinstance(asked, ast.Constant) else None
    residual = _gives_residual(reference, call, given)
    found = [
        site.id
        for site in CATALOGUE
        if site.fits(reference.kernel, scopes, residual, unquantized, fed)
    ]
    return found or [UNKNOWN_SITE]


def _gives_residual(
    reference: Reference, call: ast.Call, given: Mapping[str, ast.expr]
) -> bool | None:
    """Whether the call has a residual. None if the function tests the residual for
    None, but not around the call."""
    residual = given.get("res1", ast.Constant(None))
    if isinstance(residual, ast.Constant) or reference.at.function is None:
        return not isinstance(residual, ast.Constant)
    tests = [
        node
        for node in ast.walk(reference.at.function)
        if isinstance(node, ast.If | ast.IfExp)
        and any(_tests_for_none(part, residual) for part in ast.walk(node.test))
    ]
    around = any(call is part for node in tests for part in ast.walk(node))
    return True if around or not tests else None


def _tests_for_none(node: ast.AST, value: ast.expr) -> bool:
    return (
        isinstance(node, ast.Compare)
        and isinstance(node.ops[0], ast.Is | ast.IsNot)
        and ast.dump(node.left) == ast.dump(value)
    )


def describe_call(
    modules: Modules, module: Module, reference: Reference, call: ast.Call
) -> str:
    """A description of how the kernel is called."""
    asked = arguments(reference, call).get(PARAMETER)
    if asked is not None:
        return f"transpose_scale={ast.unparse(asked)}"
    if reference.at.node is call.func:
        return "no transpose_scale"
    name = ast.unparse(call.func)
    adapter = modules.function_of(module, call.func)
    if adapter is not None:
        return f"through {name} ({adapter.module.path})"
    return f"through {name}, no function of this tree"
