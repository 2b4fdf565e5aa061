"""Every call that makes or reads an FP8 activation scale, and in which state it is.

A tree that adopts the transposed scale at some producers and not at others is the
worst one there is: it computes with scrambled scales and may still score well enough
not to be noticed (SGLang 27798, 31490). So all calls are looked at, and a call that
nobody foresaw is listed as ``?`` rather than left out.

Found are calls by the kernels' own names, imported under whatever name; a kernel that
another module of the tree re-exports under a new name is not.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass

from contract.flow import TooManyPaths, uses_of_call, uses_of_parameter
from contract.interpreter import Use
from contract.modules import Function, FunctionNode, Kernel, Module, Modules, parse
from contract.sites import (
    CATALOGUE,
    GEMM,
    PRODUCERS,
    UNKNOWN_SITE,
    Role,
    State,
    role_of,
)
from overlaykit.errors import CannotApply
from overlaykit.trees import Tree

_KERNELS = (*PRODUCERS, GEMM)
_SCALE_PARAMETER = "input_scale"


@dataclass(frozen=True)
class SiteRow:
    """One call (or consumer, or missing catalogue entry); line and scope in ``path``."""

    site: str
    role: Role
    kernel: str
    path: str | None
    scope: str | None
    line: int | None
    state: State
    detail: str


@dataclass(frozen=True)
class Census:
    """All rows, in the catalogue's order, then the unforeseen by path and line."""

    tree: str
    rows: tuple[SiteRow, ...]


@dataclass(frozen=True)
class _Reference:
    """A mention of a kernel and the nodes around it, outermost first."""

    kernel: str
    node: ast.expr
    around: tuple[ast.AST, ...]

    @property
    def functions(self) -> list[FunctionNode]:
        return [n for n in self.around if isinstance(n, FunctionNode)]

    @property
    def scope(self) -> str:
        named = (n for n in self.around if isinstance(n, FunctionNode | ast.ClassDef))
        return ".".join(n.name for n in named) or "<module>"

    @property
    def call(self) -> ast.Call | None:
        """The call of the kernel, or the call that is given the kernel."""
        parent = self.around[-1]
        if isinstance(parent, ast.Call):
            if self.node is parent.func or self.node in parent.args:
                return parent
        return None


def take_census(tree: Tree) -> Census:
    """Look at every Python file that mentions one of the kernels."""
    modules = Modules(tree, _KERNELS)
    rows = [row for path in tree.paths() for row in _rows_of(tree, path, modules)]
    found = {row.site for row in rows}
    rows += [
        SiteRow(s.id, s.role, s.kernel, None, s.function, None, State.GONE, s.meaning)
        for s in CATALOGUE
        if s.id not in found
    ]
    order = {site.id: place for place, site in enumerate(CATALOGUE)}
    rows.sort(key=lambda r: (order.get(r.site, len(order)), r.path or "", r.line or 0))
    return Census(tree.name, tuple(rows))


def _rows_of(tree: Tree, path: str, modules: Modules) -> Iterator[SiteRow]:
    if not path.endswith(".py"):
        return
    try:
        source = tree.read(path) or b""
    except CannotApply:
        return  # a symbolic link: what it points to, if in the tree, is read there
    mentioned = [kernel for kernel in _KERNELS if kernel.encode() in source]
    if not mentioned:
        return
    try:
        module = parse(path, source)
    except (SyntaxError, ValueError) as error:
        for kernel in mentioned:
            line = getattr(error, "lineno", None)
            detail = f"does not parse: {error}"
            yield _unknown(kernel, path, None, line, detail)
        return
    modules.add(module)
    references = list(_references(modules, module))
    yield from (
        _producer_row(modules, module, reference)
        for reference in references
        if role_of(reference.kernel) is Role.PRODUCER
    )
    yield from _consumer_rows(modules, module, references)


def _unknown(
    kernel: str, path: str, scope: str | None, line: int | None, detail: str
) -> SiteRow:
    role = role_of(kernel)
    return SiteRow(UNKNOWN_SITE, role, kernel, path, scope, line, State.UNKNOWN, detail)


def _references(modules: Modules, module: Module) -> Iterator[_Reference]:
    stack: list[tuple[ast.AST, tuple[ast.AST, ...]]] = [(module.tree, ())]
    while stack:
        node, around = stack.pop()
        kernel = _kernel_named(modules, module, node)
        if kernel is not None and isinstance(node, ast.expr):
            yield _Reference(kernel, node, around)
        around = (*around, node)
        stack += [(child, around) for child in ast.iter_child_nodes(node)]


def _kernel_named(modules: Modules, module: Module, node: ast.AST) -> str | None:
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
        meaning = modules.meaning(module, node.id)
        return meaning.name if isinstance(meaning, Kernel) else None
    if isinstance(node, ast.Attribute) and node.attr in _KERNELS:
        owner: ast.expr = node
        while isinstance(owner, ast.Attribute):
            owner = owner.value
        if isinstance(owner, ast.Name) and owner.id in module.imports:
            return node.attr
    return None


def _producer_row(modules: Modules, module: Module, reference: _Reference) -> SiteRow:
    kernel, call, path = reference.kernel, reference.call, module.path
    if call is None:
        line, scope = reference.node.lineno, reference.scope
        detail = "the kernel is kept under another name or handed on: not followed"
        return _unknown(kernel, path, scope, line, detail)
    function = reference.functions[-1] if reference.functions else None
    try:
        uses = uses_of_call(modules, module, function, call)
    except TooManyPaths:
        uses = frozenset()
    site = _site_of(reference, call, {use.by for use in uses})
    state, why = _producer_state(uses)
    detail = f"{_how(modules, module, reference, call)}; {why}"
    return SiteRow(
        site, Role.PRODUCER, kernel, path, reference.scope, call.lineno, state, detail
    )


def _site_of(reference: _Reference, call: ast.Call, fed: set[str]) -> str:
    given = _arguments(reference, call)
    residual = not _is_constant(given.get("res1"), None)
    asked = given.get("output_unquantized_inp1")
    unquantized = None
    if asked is None or isinstance(asked, ast.Constant):
        unquantized = asked is not None and bool(asked.value)
    functions = [function.name for function in reference.functions]
    for site in CATALOGUE:
        if site.fits(reference.kernel, functions, residual, unquantized, fed):
            return site.id
    return UNKNOWN_SITE


def _arguments(reference: _Reference, call: ast.Call) -> dict[str, ast.expr]:
    """The kernel's arguments as the call writes them, an adapter's included."""
    at = 0 if reference.node is call.func else call.args.index(reference.node) + 1
    named = {k.arg: k.value for k in call.keywords if k.arg is not None}
    return dict(zip(PRODUCERS[reference.kernel], call.args[at:])) | named


def _is_constant(node: ast.expr | None, value: object) -> bool:
    return node is None or (isinstance(node, ast.Constant) and node.value == value)


def _how(
    modules: Modules, module: Module, reference: _Reference, call: ast.Call
) -> str:
    """What the call says of the layout it wants."""
    asked = _arguments(reference, call).get("transpose_scale")
    if asked is not None:
        return f"transpose_scale={ast.unparse(asked)}"
    if reference.node is call.func:
        return "no transpose_scale"
    name = ast.unparse(call.func)
    adapter = modules.meaning(module, name)
    if isinstance(adapter, Function):
        return f"through {name} ({adapter.module.path})"
    return f"through {name}, which is not a function of this tree"


def _producer_state(uses: frozenset[Use]) -> tuple[State, str]:
    """The state, judged by the paths on which a transposed scale is asked for."""
    asked = [use for use in uses if use.transposed is not False]
    if not uses:
        return State.UNKNOWN, "where its scale goes is not seen"
    if not asked:
        if any(use.copied for use in uses):
            return State.COPIED, "the caller transposes the scale by a copy"
        return State.ROW_MAJOR, "the scale is handed on as it is"
    if any(use.transposed is None for use in asked):
        return State.UNKNOWN, "whether it is transposed is not seen"
    if any(use.copied for use in asked):
        return State.UNKNOWN, "asked for transposed, and transposed again by a copy"
    marks = {use.marked for use in asked}
    if marks == {True}:
        return State.MARKED, f"marked on its way to {_receivers(asked)}"
    if marks == {False}:
        return State.UNMARKED, f"without a marker when given to {_receivers(asked)}"
    return State.UNKNOWN, "marked on some paths only, or not seen whether"


def _receivers(uses: list[Use]) -> str:
    return ", ".join(sorted({use.by for use in uses}))


def _consumer_rows(
    modules: Modules, module: Module, references: list[_Reference]
) -> Iterator[SiteRow]:
    """One row for each function that mentions CK's GEMM."""
    seen: set[FunctionNode] = set()
    for reference in references:
        if reference.kernel != GEMM:
            continue
        if not reference.functions:
            line, detail = reference.node.lineno, "the GEMM is kept under another name"
            yield _unknown(GEMM, module.path, reference.scope, line, detail)
            continue
        function = reference.functions[-1]
        if function not in seen:
            seen.add(function)
            state, detail = _consumer_state(modules, module, function)
            yield SiteRow(
                "C",
                Role.CONSUMER,
                GEMM,
                module.path,
                reference.scope,
                function.lineno,
                state,
                detail,
            )


def _consumer_state(
    modules: Modules, module: Module, function: FunctionNode
) -> tuple[State, str]:
    declared = function.args
    names = {a.arg for a in (*declared.args, *declared.kwonlyargs)}
    if _SCALE_PARAMETER not in names:
        return State.UNKNOWN, f"has no parameter {_SCALE_PARAMETER}"
    try:
        copied = {
            marked: {
                use.copied
                for use in uses_of_parameter(
                    modules, module, function, _SCALE_PARAMETER, marked
                )
                if use.by == GEMM
            }
            for marked in (False, True)
        }
    except TooManyPaths:
        return State.UNKNOWN, "branches too often to be followed"
    if copied == {False: {True}, True: {True}}:
        return State.COPIES_ALL, "transposes each scale by a copy before CK's GEMM"
    if copied == {False: {True}, True: {False}}:
        return State.COPIES_UNMARKED, "hands a marked scale to CK's GEMM without a copy"
    if copied == {False: {False}, True: {False}}:
        return State.ASSUMES, "hands each scale to CK's GEMM without a copy"
    return State.UNKNOWN, "its scale is not seen to reach CK's GEMM one way only"
