"""Python modules of a tree, and what a name in one of them stands for.

Names are followed through imports, wherever in the file those stand and whatever
they are renamed to. One of the kernels is known by its own name alone: AITER is not
part of the tree, and its modules move between releases.
"""

from __future__ import annotations

import ast
import warnings
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from overlaykit.trees import Tree

FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Const:
    """A value that the source states."""

    value: object


@dataclass(frozen=True)
class Kernel:
    """One of the kernels, under whatever name it is called."""

    name: str


@dataclass(frozen=True)
class Function:
    """A function of the tree."""

    name: str
    module: Module = field(repr=False)
    node: FunctionNode = field(repr=False)


@dataclass(frozen=True)
class Imported:
    """Anything else that is imported: a module, or a name that a module holds."""

    name: str


Meaning = Const | Kernel | Function | Imported


@dataclass(frozen=True, eq=False)
class Module:
    """A parsed file: what it imports (by local name), defines and states."""

    path: str
    tree: ast.Module
    imports: Mapping[str, tuple[tuple[str, str | None], ...]]
    functions: Mapping[str, FunctionNode]
    constants: Mapping[str, Const]


def parse(path: str, source: bytes) -> Module:
    """Raises SyntaxError or ValueError where the bytes are no Python."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tree = ast.parse(source)
    imports: dict[str, tuple[tuple[str, str | None], ...]] = {}
    for node in ast.walk(tree):
        for local, target in _imported(node, path):
            imports[local] = (*imports.get(local, ()), target)
    statements = list(_module_level(tree.body))
    functions = {n.name: n for n in statements if isinstance(n, FunctionNode)}
    return Module(path, tree, imports, functions, _constants(tree, statements))


class Modules:
    """The modules of one tree, parsed when first asked for."""

    def __init__(self, tree: Tree, kernels: Collection[str]) -> None:
        self._tree = tree
        self._kernels = kernels
        self._parsed: dict[str, Module | None] = {}

    def add(self, module: Module) -> None:
        """Spare a second parse of a file that is already at hand."""
        self._parsed[module.path] = module

    def meaning(self, module: Module, name: str) -> Meaning | None:
        """What a name stands for at module level; None where that is not plain."""
        return self._meaning(module, name, frozenset())

    def member(self, module: Module, dotted: str, name: str) -> Meaning:
        """What ``dotted.name``, imported by ``module``, stands for."""
        return self._member(module.path, dotted, name, frozenset())

    def _meaning(
        self, module: Module, name: str, seen: frozenset[tuple[str, str]]
    ) -> Meaning | None:
        if (module.path, name) in seen:
            return None
        seen |= {(module.path, name)}
        if name in module.functions:
            if name in self._kernels:
                return Kernel(name)
            return Function(name, module, module.functions[name])
        found: Meaning | None = module.constants.get(name)
        for dotted, member in module.imports.get(name, ()):
            if member is None:
                found = found or Imported(dotted)
                continue
            meaning = self._member(module.path, dotted, member, seen)
            if not isinstance(meaning, Imported):
                return meaning
            found = found or meaning
        return found

    def _member(
        self, importer: str, dotted: str, name: str, seen: frozenset[tuple[str, str]]
    ) -> Meaning:
        if name in self._kernels:
            return Kernel(name)
        for path in _places(importer, dotted):
            module = self._module(path)
            meaning = self._meaning(module, name, seen) if module else None
            if meaning is not None:
                return meaning
        return Imported(f"{dotted}.{name}")

    def _module(self, path: str) -> Module | None:
        if path not in self._parsed:
            source = self._tree.read(path)
            try:
                self._parsed[path] = None if source is None else parse(path, source)
            except (SyntaxError, ValueError):
                self._parsed[path] = None
        return self._parsed[path]


def _imported(
    node: ast.AST, path: str
) -> Iterator[tuple[str, tuple[str, str | None]]]:
    if isinstance(node, ast.Import):
        for alias in node.names:
            top = alias.name.partition(".")[0]
            yield (alias.asname or top, (alias.name if alias.asname else top, None))
    elif isinstance(node, ast.ImportFrom):
        package = path.split("/")[: -node.level] if node.level else []
        dotted = ".".join([*package, *filter(None, [node.module])])
        for alias in node.names:
            yield (alias.asname or alias.name, (dotted, alias.name))


def _places(importer: str, dotted: str) -> Iterator[str]:
    """Where a tree may hold a module, judged by where its importer lies."""
    parts, folders = dotted.split("."), importer.split("/")[:-1]
    roots = [folders[:i] for i, name in enumerate(folders) if name == parts[0]]
    for root in [*roots, []]:
        place = "/".join([*root, *parts])
        yield from (f"{place}.py", f"{place}/__init__.py")


def _module_level(body: Iterable[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements that run on import, those under ``if`` and ``try`` too."""
    for statement in body:
        yield statement
        if not isinstance(statement, FunctionNode | ast.ClassDef):
            for inner in ast.iter_child_nodes(statement):
                if isinstance(inner, ast.stmt):
                    yield from _module_level([inner])
                elif isinstance(inner, ast.ExceptHandler):
                    yield from _module_level(inner.body)


def _constants(tree: ast.Module, statements: Iterable[ast.stmt]) -> dict[str, Const]:
    """Names given a literal on import and nothing else anywhere in the file."""
    stored = Counter(
        node.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
    )
    return {
        target.id: Const(node.value.value)
        for node in statements
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
        for target in node.targets
        if isinstance(target, ast.Name) and stored[target.id] == 1
    }
