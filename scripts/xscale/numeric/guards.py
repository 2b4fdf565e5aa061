"""Find the guard that keeps a run from a kernel's call. Worker side.

The source says where the kernel is named and which branches that place is in; the trace
says which of them ran. No condition is evaluated here.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from overlaykit.core.syntax import parsed
from xscale.numeric.tracing import Place, Trace
from xscale.sites import Site

_Function = (ast.FunctionDef, ast.AsyncFunctionDef)
_DEEPEST = 4


@dataclass(frozen=True)
class Call:
    """A place in a function that names a kernel, or a function that leads to one."""

    path: str
    line: int
    scope: str
    first: int
    last: int
    branches: tuple[tuple[ast.expr, int, int], ...]
    """The tests around it, outermost first, with the lines of the branch it is in."""

    @property
    def function(self) -> str:
        return self.scope.rpartition(".")[2]


@dataclass(frozen=True)
class Guard:
    """A test that ran, whose branch with the call did not run. ``at`` is when."""

    path: str
    line: int
    test: ast.expr
    at: int

    @property
    def place(self) -> Place:
        return self.path, self.line


class Calls:
    """The kernels' calls in the modules that are run.

    Only modules that mention a name are parsed, and only once for several trees.
    """

    def __init__(self, modules: Mapping[str, tuple[str, bytes]]) -> None:
        self._modules = tuple(modules.values())

    def _named(self, name: str) -> list[Call]:
        """Where a name is read under its own name or an alias."""
        return [
            call
            for path, data in self._modules
            if name.encode() in data
            for call in _calls_in(path, data).get(name, ())
        ]

    def reached(self, site: Site, trace: Trace, before: int) -> Call | None:
        """The call of the site's kernel that ran last."""
        ran = [
            (at, call)
            for call in self._of(site)
            if (at := trace.ran(call.path, call.line, call.line, before)) is not None
        ]
        return max(ran, key=lambda one: one[0])[1] if ran else None

    def guard(self, site: Site, trace: Trace, after: int, before: int) -> Guard | None:
        """The test, run last between two events, that kept the run from a call."""
        found = [
            guard
            for guard in self._guards(self._of(site), trace, before, _DEEPEST)
            if guard.at > after
        ]
        return max(found, key=lambda guard: guard.at, default=None)

    def _of(self, site: Site) -> list[Call]:
        """The calls in the site's function; all of its kernel if there is none."""
        calls = self._named(site.kernel)
        feeds = [site.feeds] if site.feeds else []
        inside = [
            c for c in calls if site.fits(site.kernel, [c.scope], None, None, feeds)
        ]
        return inside or calls

    def _guards(
        self, calls: Iterable[Call], trace: Trace, before: int, depth: int
    ) -> Iterator[Guard]:
        for call in calls:
            if trace.ran(call.path, call.first + 1, call.last, before) is None:
                if depth:
                    callers = (
                        one
                        for one in self._named(call.function)
                        if one.function != call.function
                    )
                    yield from self._guards(callers, trace, before, depth - 1)
            elif (guard := _shut(call, trace, before)) is not None:
                yield guard


def _shut(call: Call, trace: Trace, before: int) -> Guard | None:
    """The outermost test that ran without the branch in which the call is."""
    for test, first, last in call.branches:
        end = test.end_lineno or test.lineno
        at = trace.ran(call.path, test.lineno, end, before)
        if at is None:
            return None
        inside = trace.ran(call.path, first, last, before)
        if inside is None:
            return Guard(call.path, test.lineno, test, at)
    return None


@lru_cache(maxsize=64)
def _calls_in(path: str, data: bytes) -> dict[str, list[Call]]:
    """The calls in a module, by the name that is read and the name that it stands
    for."""
    found: dict[str, list[Call]] = {}
    tree = parsed(data, path)
    aliases = _aliases(tree)
    for call, name in _uses(tree, path):
        for real in {name, aliases.get(name, name)}:
            found.setdefault(real, []).append(call)
    return found


def _aliases(tree: ast.Module) -> dict[str, str]:
    return {
        alias.asname: alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if alias.asname is not None
    }


def _uses(tree: ast.Module, path: str) -> Iterator[tuple[Call, str]]:
    """Every name that is read inside a function, with the branches around it."""

    def walk(
        nodes: Iterable[ast.AST],
        scope: tuple[str, ...],
        function: Any,
        branches: tuple[tuple[ast.expr, int, int], ...],
    ) -> Iterator[tuple[Call, str]]:
        for node in nodes:
            if isinstance(node, ast.ClassDef):
                yield from walk(node.body, (*scope, node.name), None, ())
            elif isinstance(node, _Function):
                yield from walk(node.body, (*scope, node.name), node, ())
            elif isinstance(node, ast.If | ast.IfExp):
                yield from walk([node.test], scope, function, branches)
                for body in (node.body, node.orelse):
                    part = body if isinstance(body, list) else [body]
                    if part:
                        lines = (part[0].lineno, part[-1].end_lineno or 0)
                        inner = (*branches, (node.test, *lines))
                        yield from walk(part, scope, function, inner)
            else:
                name = _read(node)
                if name is not None and function is not None:
                    last = function.end_lineno or function.lineno
                    line: int = getattr(node, "lineno", function.lineno)
                    where = (path, line, ".".join(scope), function.lineno, last)
                    yield Call(*where, branches), name
                yield from walk(ast.iter_child_nodes(node), scope, function, branches)

    yield from walk(tree.body, (), None, ())


def _read(node: ast.AST) -> str | None:
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
        return node.id
    return node.attr if isinstance(node, ast.Attribute) else None
