"""Python modules of a tree, and the meaning of names in them.

Names are followed through imports anywhere in the file, under any alias. A kernel is
recognized by its own name alone: AITER is not part of the tree, and its modules move
between releases.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property, lru_cache

from overlaykit.core.syntax import shared
from overlaykit.trees.tree import Tree

FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Const:
    """A value that the source states."""

    value: object


@dataclass(frozen=True)
class Kernel:
    """One of the kernels, under any name."""

    name: str


@dataclass(frozen=True)
class Function:
    """A function of the tree."""

    name: str
    module: Module = field(repr=False)
    node: FunctionNode = field(repr=False)


@dataclass(frozen=True)
class Imported:
    """Any other import; each target is a module and a name in it."""

    importer: str
    targets: tuple[Target, ...]

    @property
    def name(self) -> str:
        return ".".join(filter(None, self.targets[0]))

    def __repr__(self) -> str:
        return self.name

    def member(self, name: str) -> Imported:
        """``name`` in this, which is assumed to be a module."""
        modules = [".".join(filter(None, target)) for target in self.targets]
        return Imported(self.importer, tuple((module, name) for module in modules))


Target = tuple[str, str | None]
Meaning = Const | Kernel | Function | Imported


@dataclass(frozen=True)
class Place:
    """Where a name or attribute is read, and the enclosing definitions, outermost
    first.

    ``parent`` is the node that contains it.
    """

    node: ast.expr
    parent: ast.AST
    around: tuple[FunctionNode | ast.ClassDef, ...]

    @property
    def function(self) -> FunctionNode | None:
        """The innermost enclosing function."""
        inner = (n for n in reversed(self.around) if isinstance(n, FunctionNode))
        return next(inner, None)

    @property
    def scope(self) -> str:
        """``Class.method``."""
        return ".".join(n.name for n in self.around) or "<module>"

    @property
    def call(self) -> ast.Call | None:
        """The call of the name, or the call that it is an argument of."""
        parent = self.parent
        if not isinstance(parent, ast.Call):
            return None
        return parent if self.node in (parent.func, *parent.args) else None


@dataclass(frozen=True, eq=False)
class Module:
    """A parsed file: its imports (by local name), definitions, constants and reads.

    ``reads`` lists where each name or attribute is read, in the file's order.
    """

    path: str
    tree: ast.Module
    imports: Mapping[str, tuple[Target, ...]]
    functions: Mapping[str, FunctionNode]
    classes: Mapping[str, ast.ClassDef]
    constants: Mapping[str, Const]
    reads: Mapping[str, list[Place]]

    @cached_property
    def _made(self) -> Mapping[str, frozenset[str]]:
        made: dict[str, set[str]] = {}
        for node in ast.walk(self.tree):
            if not isinstance(node, ast.Assign):
                continue
            for target in node.targets:
                if isinstance(target, ast.Attribute):
                    makers = made.setdefault(target.attr, set())
                    makers |= self._makers(node.value)
        return {name: frozenset(makers - {"None"}) for name, makers in made.items()}

    def _makers(self, value: ast.expr) -> set[str]:
        """The callable that makes a value; for a method, the callables of what it
        returns."""
        maker = ast.unparse(value.func if isinstance(value, ast.Call) else value)
        own, _, name = maker.partition(".")
        methods = [m for c in self.classes.values() if (m := method_of(c, name))]
        if own != "self" or not methods:
            return {maker}
        returned = [
            n for m in methods for n in ast.walk(m) if isinstance(n, ast.Return)
        ]
        values = (r.value for r in returned if r.value is not None)
        return {ast.unparse(v.func if isinstance(v, ast.Call) else v) for v in values}

    def made(self, attribute: str) -> frozenset[str]:
        """The classes, by their local names, whose instances the module assigns to an
        attribute. Other assigned values are given as source text; None is left out."""
        return self._made.get(attribute, frozenset())

    def owner_of(self, function: FunctionNode | None) -> ast.ClassDef | None:
        """The module-level class that has a function as a method."""
        owners = (c for c in self.classes.values() if function in c.body)
        return next(owners, None)


def method_of(owner: ast.ClassDef, name: str) -> FunctionNode | None:
    """A class's own method."""
    methods = (n for n in owner.body if isinstance(n, FunctionNode) and n.name == name)
    return next(methods, None)


@lru_cache(maxsize=64)
def parse(path: str, source: bytes) -> Module:
    """The module; trees with the same file share it.

    Raises SyntaxError if the bytes are not Python or are nested too deeply."""
    try:
        return _read(path, shared(source))
    except RecursionError as error:
        raise SyntaxError("nested too deeply") from error


def _read(path: str, tree: ast.Module) -> Module:
    imports: dict[str, tuple[Target, ...]] = {}
    reads: dict[str, list[Place]] = {}
    stored: Counter[str] = Counter()
    stack: list[tuple[ast.AST, ast.AST, tuple[FunctionNode | ast.ClassDef, ...]]]
    stack = [(tree, tree, ())]
    while stack:
        node, parent, around = stack.pop()
        if isinstance(node, ast.Name | ast.Attribute):
            name = node.id if isinstance(node, ast.Name) else node.attr
            if isinstance(node.ctx, ast.Load):
                reads.setdefault(name, []).append(Place(node, parent, around))
            elif isinstance(node, ast.Name):
                stored[name] += 1
        elif isinstance(node, ast.Import | ast.ImportFrom):
            for local, target in _imports_of(node, path):
                imports[local] = (*imports.get(local, ()), target)
        elif isinstance(node, FunctionNode | ast.ClassDef):
            around = (*around, node)
        stack += [(child, node, around) for child in _children(node)]
    statements = list(_module_level(tree.body))
    functions = {n.name: n for n in statements if isinstance(n, FunctionNode)}
    classes = {n.name: n for n in statements if isinstance(n, ast.ClassDef)}
    constants = _constants(stored, statements)
    return Module(path, tree, imports, functions, classes, constants, reads)


_NO_READS = (ast.expr_context, ast.operator, ast.cmpop, ast.boolop, ast.unaryop,
             ast.Constant)  # fmt: skip


def _children(node: ast.AST) -> list[ast.AST]:
    """The child nodes that may contain a name, last one first."""
    found: list[ast.AST] = []
    for name in node._fields:
        value = getattr(node, name, None)
        if isinstance(value, list):
            found += [one for one in value if isinstance(one, ast.AST)]
        elif isinstance(value, ast.AST) and not isinstance(value, _NO_READS):
            found.append(value)
    found.reverse()
    return found


class Modules:
    """The modules of one tree, parsed on first use.

    Sources of modules that are also searched for texts are kept as bytes.
    """

    def __init__(self, tree: Tree, kernels: Collection[str]) -> None:
        self._tree = tree
        self.kernels = kernels
        self._parsed: dict[str, Module | None] = {}
        self._kept: dict[str, bytes] = {}
        self._read: dict[str, Module | None] | None = None

    def parse(self, path: str, source: bytes) -> Module:
        """Parse a module, or return it from the cache. Raises SyntaxError or
        ValueError."""
        module = self._parsed.get(path) or parse(path, source)
        self._parsed[path] = module
        return module

    def keep(self, path: str, source: bytes) -> None:
        """Add a file to the searched ones."""
        self._kept[path] = source

    def holding(self, text: str) -> Iterator[tuple[str, bytes]]:
        """Path and source of the searched files with ``text`` in them."""
        sought = text.encode()
        return ((p, source) for p, source in self._kept.items() if sought in source)

    def module(self, path: str) -> Module | None:
        """None if the tree has no such file or if it is not Python."""
        found = self._module(path)
        if self._read is not None:
            self._read[path] = found
        return found

    @contextmanager
    def noting(self) -> Iterator[dict[str, Module | None]]:
        """Note which modules are read meanwhile."""
        before, self._read = self._read, {}
        try:
            yield self._read
        finally:
            if before is not None:
                before.update(self._read)
            self._read = before

    def _module(self, path: str) -> Module | None:
        if path not in self._parsed:
            source = self._kept.get(path) or self._tree.read(path)
            try:
                self._parsed[path] = None if source is None else parse(path, source)
            except (SyntaxError, ValueError):
                self._parsed[path] = None
        return self._parsed[path]

    def meaning(self, module: Module, name: str) -> Meaning | None:
        """The meaning of a name at module level; None if it is not clear."""
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

    def meaning_of(self, module: Module, node: ast.expr) -> Meaning | None:
        """The same for a dotted name in ``module``."""
        if isinstance(node, ast.Name):
            return self.meaning(module, node.id)
        if isinstance(node, ast.Attribute):
            owner = self.meaning_of(module, node.value)
            if isinstance(owner, Imported):
                return self.member(owner, node.attr)
        return None

    def function_of(self, module: Module, node: ast.expr) -> Function | None:
        """The function of this tree that a dotted name in ``module`` refers to."""
        meaning = self.meaning_of(module, node)
        if isinstance(meaning, Imported):
            meaning = self.resolve(meaning)
        return meaning if isinstance(meaning, Function) else None

    def member(self, owner: Imported, name: str) -> Meaning:
        """The meaning of ``owner.name``."""
        return Kernel(name) if name in self.kernels else owner.member(name)

    def class_of(
        self, module: Module, name: str, hops: int = 4
    ) -> tuple[Module, ast.ClassDef] | None:
        """The class in this tree that a module-level name refers to."""
        if name in module.classes:
            return module, module.classes[name]
        for dotted, member in module.imports.get(name, ()) if hops else ():
            for path in _module_paths(module.path, dotted):
                where = self.module(path)
                if where is not None and member is not None:
                    return self.class_of(where, member, hops - 1)
        return None

    def resolve(self, imported: Imported, hops: int = 4) -> Meaning:
        """The meaning of an imported name, if this tree defines it."""
        for module_name, member in imported.targets if hops else ():
            for path in _module_paths(imported.importer, module_name):
                module = self.module(path)
                if module is None or member is None:
                    continue
                meaning = self.meaning(module, member)
                if meaning is None and "*" in module.imports:
                    everything = module.imports["*"]
                    named = tuple((name, member) for name, _ in everything)
                    meaning = Imported(module.path, named)
                if isinstance(meaning, Imported):
                    meaning = self.resolve(meaning, hops - 1)
                if meaning is not None and not isinstance(meaning, Imported):
                    return meaning
        return imported


def _imports_of(node: ast.AST, path: str) -> Iterator[tuple[str, Target]]:
    if isinstance(node, ast.Import):
        for alias in node.names:
            top = alias.name.partition(".")[0]
            yield (alias.asname or top, (alias.name if alias.asname else top, None))
    elif isinstance(node, ast.ImportFrom):
        package = path.split("/")[: -node.level] if node.level else []
        dotted = ".".join([*package, *filter(None, [node.module])])
        for alias in node.names:
            yield (alias.asname or alias.name, (dotted, alias.name))


def _module_paths(importer: str, dotted: str) -> Iterator[str]:
    """The paths where a tree may hold a module, relative to its importer."""
    parts, folders = dotted.split("."), importer.split("/")[:-1]
    roots = [folders[:i] for i, name in enumerate(folders) if name == parts[0]]
    for root in [*roots, []]:
        place = "/".join([*root, *parts])
        yield from (f"{place}.py", f"{place}/__init__.py")


def _module_level(body: Iterable[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements that run on import, including those under ``if`` and ``try``."""
    for statement in body:
        yield statement
        if not isinstance(statement, FunctionNode | ast.ClassDef):
            for inner in ast.iter_child_nodes(statement):
                if isinstance(inner, ast.stmt):
                    yield from _module_level([inner])
                elif isinstance(inner, ast.ExceptHandler):
                    yield from _module_level(inner.body)


def _constants(
    stored: Mapping[str, int], statements: Iterable[ast.stmt]
) -> dict[str, Const]:
    """Names that are assigned one literal on import and nothing else in the file."""
    return {
        target.id: Const(node.value.value)
        for node in statements
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
        for target in node.targets
        if isinstance(target, ast.Name) and stored[target.id] == 1
    }
