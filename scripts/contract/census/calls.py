"""Finds where a module names one of the kernels, and what its calls say."""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from contract.census.modules import Function, Imported, Kernel, Module, Modules, Place
from contract.sites import CATALOGUE, GROUP_SIZE, PRODUCERS, UNKNOWN_SITE


@dataclass(frozen=True)
class Reference:
    """A mention of a kernel."""

    kernel: str
    at: Place


def references(modules: Modules, module: Module) -> Iterator[Reference]:
    """All mentions but imports and definitions, in no order."""
    aliases = (
        local
        for local, targets in module.imports.items()
        if any(member in modules.kernels for _, member in targets)
    )
    for name in {*modules.kernels, *aliases}:
        for place in module.reads.get(name, ()):
            meaning = modules.stands_for(module, place.node)
            if isinstance(meaning, Kernel):
                yield Reference(meaning.name, place)


def arguments(reference: Reference, call: ast.Call) -> dict[str, ast.expr]:
    """The kernel's arguments as the call writes them, an adapter's call included."""
    at = 0 if reference.at.node is call.func else call.args.index(reference.at.node) + 1
    named = {k.arg: k.value for k in call.keywords if k.arg is not None}
    names = PRODUCERS[reference.kernel]
    return dict(zip(names, call.args[at:], strict=False)) | named


def sites_of(
    reference: Reference, call: ast.Call, scopes: Sequence[str], fed: Collection[str]
) -> list[str]:
    """The catalogue's ids of a producing call whose result goes to ``fed``.

    ``scopes`` are its own and those that the result was followed to. More than one id
    where one call does what several did.
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
    """None where the function asks of what it gives whether it is None, but never
    around the call."""
    residual = given.get("res1", ast.Constant(None))
    if isinstance(residual, ast.Constant) or reference.at.function is None:
        return not isinstance(residual, ast.Constant)
    tests = [
        node
        for node in ast.walk(reference.at.function)
        if isinstance(node, ast.If | ast.IfExp)
        and any(_asks_for_none(part, residual) for part in ast.walk(node.test))
    ]
    around = any(call is part for node in tests for part in ast.walk(node))
    return True if around or not tests else None


def _asks_for_none(node: ast.AST, value: ast.expr) -> bool:
    return (
        isinstance(node, ast.Compare)
        and isinstance(node.ops[0], ast.Is | ast.IsNot)
        and ast.dump(node.left) == ast.dump(value)
    )


def manner(
    modules: Modules, module: Module, reference: Reference, call: ast.Call
) -> str:
    """What a person should know of how the kernel is called."""
    asked = arguments(reference, call).get("transpose_scale")
    if asked is not None:
        return f"transpose_scale={ast.unparse(asked)}"
    if reference.at.node is call.func:
        return "no transpose_scale"
    name = ast.unparse(call.func)
    adapter = modules.stands_for(module, call.func)
    if isinstance(adapter, Imported):
        adapter = modules.resolve(adapter)
    if isinstance(adapter, Function):
        return f"through {name} ({adapter.module.path})"
    return f"through {name}, no function of this tree"
