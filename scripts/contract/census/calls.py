"""Finds where a module names one of the kernels, and what its calls say."""

from __future__ import annotations

import ast
from dataclasses import dataclass

from contract.census.modules import (
    Function,
    FunctionNode,
    Imported,
    Kernel,
    Module,
    Modules,
)
from contract.sites import CATALOGUE, PRODUCERS, UNKNOWN_SITE


@dataclass(frozen=True)
class Reference:
    """A mention of a kernel, and the nodes around it, outermost first."""

    kernel: str
    node: ast.expr
    around: tuple[ast.AST, ...]

    @property
    def functions(self) -> list[FunctionNode]:
        return [n for n in self.around if isinstance(n, FunctionNode)]

    @property
    def scope(self) -> str:
        """``Class.method``."""
        named = (n for n in self.around if isinstance(n, FunctionNode | ast.ClassDef))
        return ".".join(n.name for n in named) or "<module>"

    @property
    def call(self) -> ast.Call | None:
        """The call of the kernel, or the call that is given the kernel."""
        parent = self.around[-1]
        if not isinstance(parent, ast.Call):
            return None
        return parent if self.node in (parent.func, *parent.args) else None


def references(modules: Modules, module: Module) -> list[Reference]:
    """All mentions but imports and definitions, in no order."""
    found = []
    stack: list[tuple[ast.AST, tuple[ast.AST, ...]]] = [(module.tree, ())]
    while stack:
        node, around = stack.pop()
        kernel = _kernel_named(modules, module, node)
        if kernel is not None and isinstance(node, ast.expr):
            found.append(Reference(kernel, node, around))
        around = (*around, node)
        stack += [(child, around) for child in ast.iter_child_nodes(node)]
    return found


def _kernel_named(modules: Modules, module: Module, node: ast.AST) -> str | None:
    if isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Load):
        meaning = modules.stands_for(module, node)
        return meaning.name if isinstance(meaning, Kernel) else None
    return None


def arguments(reference: Reference, call: ast.Call) -> dict[str, ast.expr]:
    """The kernel's arguments as the call writes them, an adapter's call included."""
    at = 0 if reference.node is call.func else call.args.index(reference.node) + 1
    named = {k.arg: k.value for k in call.keywords if k.arg is not None}
    names = PRODUCERS[reference.kernel]
    return dict(zip(names, call.args[at:], strict=False)) | named


def site_of(reference: Reference, call: ast.Call, fed: set[str]) -> str:
    """The catalogue's id of a producing call whose result goes to ``fed``."""
    given = arguments(reference, call)
    residual = given.get("res1", ast.Constant(None))
    asked = given.get("output_unquantized_inp1", ast.Constant(False))
    for site in CATALOGUE:
        if site.fits(
            reference.kernel,
            [function.name for function in reference.functions],
            not (isinstance(residual, ast.Constant) and residual.value is None),
            bool(asked.value) if isinstance(asked, ast.Constant) else None,
            fed,
        ):
            return site.id
    return UNKNOWN_SITE


def manner(
    modules: Modules, module: Module, reference: Reference, call: ast.Call
) -> str:
    """What a person should know of how the kernel is called."""
    asked = arguments(reference, call).get("transpose_scale")
    if asked is not None:
        return f"transpose_scale={ast.unparse(asked)}"
    if reference.node is call.func:
        return "no transpose_scale"
    name = ast.unparse(call.func)
    adapter = modules.stands_for(module, call.func)
    if isinstance(adapter, Imported):
        adapter = modules.resolve(adapter)
    if isinstance(adapter, Function):
        return f"through {name} ({adapter.module.path})"
    return f"through {name}, no function of this tree"
