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
    """Anything else that is imported; each target a module and a name in it."""

    importer: str
    targets: tuple[Target, ...]

    @property
    def name(self) -> str:
        return ".".join(filter(None, self.targets[0]))

    def __repr__(self) -> str:
        return self.name

    def member(self, name: str) -> Imported:
        """``name`` of this, taken to be a module."""
        modules = [".".join(filter(None, target)) for target in self.targets]
        return Imported(self.importer, tuple((module, name) for module in modules))


Target = tuple[str, str | None]
Meaning = Const | Kernel | Function | Imported


@dataclass(frozen=True, eq=False)
class Module:
    """A parsed file: what it imports (by local name), defines and states."""

    path: str
    tree: ast.Module
    imports: Mapping[str, tuple[Target, ...]]
    functions: Mapping[str, FunctionNode]
    constants: Mapping[str, Const]


def parse(path: str, source: bytes) -> Module:
    """Raises SyntaxError or ValueError where the bytes are no Python."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tree = ast.parse(source)
    imports: dict[str, tuple[Target, ...]] = {}
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
        self.kernels = kernels
        self._parsed: dict[str, Module | None] = {}

    def add(self, module: Module) -> None:
        """Spare a second parse of a file that is already at hand."""
        self._parsed[module.path] = module

    def meaning(self, module: Module, name: str) -> Meaning | None:
        """What a name stands for at module level; None where that is not plain."""
        targets = module.imports.get(name, ())
        if name in self.kernels and name in module.functions:
            return Kernel(name)
        if name in module.functions:
            return Function(name, module, module.functions[name])
        for _, member in targets:
            if member is not None and member in self.kernels:
                return Kernel(member)
        if targets:
            return Imported(module.path, targets)
        return module.constants.get(name)

    def stands_for(self, module: Module, node: ast.expr) -> Meaning | None:
        """The same for a dotted name, as it is written in ``module``."""
        if isinstance(node, ast.Name):
            return self.meaning(module, node.id)
        if isinstance(node, ast.Attribute):
            owner = self.stands_for(module, node.value)
            if isinstance(owner, Imported):
                return self.member(owner, node.attr)
        return None

    def member(self, owner: Imported, name: str) -> Meaning:
        """What ``owner.name`` stands for."""
        return Kernel(name) if name in self.kernels else owner.member(name)

    def resolve(self, imported: Imported, hops: int = 4) -> Meaning:
        """What an imported name stands for, if this tree defines it."""
        for module_name, member in imported.targets if hops else ():
            for path in _places(imported.importer, module_name):
                module = self._module(path)
                if module is None or member is None:
                    continue
                meaning = self.meaning(module, member)
                if isinstance(meaning, Imported):
                    meaning = self.resolve(meaning, hops - 1)
                if meaning is not None and not isinstance(meaning, Imported):
                    return meaning
        return imported

    def _module(self, path: str) -> Module | None:
        if path not in self._parsed:
            source = self._tree.read(path)
            try:
                self._parsed[path] = None if source is None else parse(path, source)
            except (SyntaxError, ValueError):
                self._parsed[path] = None
        return self._parsed[path]


def _imported(node: ast.AST, path: str) -> Iterator[tuple[str, Target]]:
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
