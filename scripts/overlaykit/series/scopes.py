"""Which function or class a line belongs to.

A line number moves and a context can have a twin; the qualified name of the
enclosing definition is what a hunk was written for. It comes from the syntax tree,
never from indentation or from the text after a hunk header.
"""

from __future__ import annotations

import ast
import re
from bisect import bisect_right
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache

from overlaykit.core import syntax

MODULE = "<module>"
Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


@dataclass(frozen=True)
class ScopeMap:
    """The scopes of one file.

    A name defined twice in one parent is told apart by ``#2``, ``#3`` …, in order, so
    that a second definition of the same name is another scope.
    """

    starts: tuple[int, ...]
    names: tuple[str, ...]

    def at(self, line: int) -> str:
        """The innermost scope of a 1-based line."""
        return self.names[bisect_right(self.starts, line) - 1]

    def __contains__(self, scope: str) -> bool:
        return scope in self.names


@lru_cache(maxsize=8)
def parsed(source: bytes) -> ast.Module | None:
    """The syntax tree of a Python file, to be read only: whoever asks for the same
    contents gets the same tree. None where it does not parse.

    None too where lines are not what they seem: Python ends one at a lone carriage
    return, git does not.
    """
    if re.search(rb"\r(?!\n)", source):
        return None
    try:
        return syntax.parsed(source)
    except SyntaxError:
        return None


@lru_cache(maxsize=16)
def map_scopes(source: bytes) -> ScopeMap | None:
    """The scopes of a Python file; None where it does not parse."""
    module = parsed(source)
    if module is None:
        return None
    spans: list[tuple[int, int, str]] = []
    try:
        _collect(module, "", spans)
    except RecursionError:
        return None
    events: dict[int, str] = {0: MODULE}
    # Outer spans come before the inner ones that they hold, so an inner one overrides
    # what its parent said, and hands back to the parent after its last line.
    for first, last, name in spans:
        events[first] = name
        after = last + 1
        if after not in events:
            parent = name.rpartition(".")[0] or MODULE
            events[after] = parent
    ordered = sorted(events.items())
    return ScopeMap(tuple(k for k, _ in ordered), tuple(v for _, v in ordered))


def _collect(node: ast.AST, prefix: str, spans: list[tuple[int, int, str]]) -> None:
    seen: Counter[str] = Counter()
    for child in _definitions(node):
        seen[child.name] += 1
        nth = seen[child.name]
        name = prefix + child.name + (f"#{nth}" if nth > 1 else "")
        first = min([child.lineno, *(d.lineno for d in child.decorator_list)])
        spans.append((first, child.end_lineno or child.lineno, name))
        _collect(child, name + ".", spans)


def _definitions(node: ast.AST) -> list[Definition]:
    """Definitions directly in a scope, those inside its if and try blocks too."""
    found: list[Definition] = []
    for child in ast.iter_child_nodes(node):
        if isinstance(child, Definition):
            found.append(child)
        elif not isinstance(child, ast.expr):
            found += _definitions(child)
    return found
