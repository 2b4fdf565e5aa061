"""The function or class that a line belongs to.

Line numbers move, and context lines can occur twice; a hunk is written for one
definition. Its qualified name comes from the syntax tree, never from indentation or
from the text after a hunk header.
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

    Further definitions of a name in the same parent get ``#2``, ``#3`` …, in order:
    each one is a scope of its own.
    """

    starts: tuple[int, ...]
    names: tuple[str, ...]

    def at(self, line: int) -> str:
        """The innermost scope of a line, counted from 1."""
        return self.names[bisect_right(self.starts, line) - 1]

    def __contains__(self, scope: str) -> bool:
        return scope in self.names


def parsed(source: bytes) -> ast.Module | None:
    """The syntax tree of a Python file; None if it does not parse.

    Read only: the same contents may give the same tree. None, too, for a file with a
    lone carriage return, which ends a line for Python and not for git.
    """
    if re.search(rb"\r(?!\n)", source):
        return None
    try:
        return syntax.shared(source)
    except SyntaxError:
        return None


@lru_cache(maxsize=256)
def map_scopes(source: bytes) -> ScopeMap | None:
    """The scopes of a Python file; None if it does not parse."""
    module = parsed(source)
    if module is None:
        return None
    spans: list[tuple[int, int, str]] = []
    try:
        _collect(module, "", spans)
    except RecursionError:
        return None
    events: dict[int, str] = {0: MODULE}
    # Outer spans come before inner ones, so an inner span overrides its parent and
    # returns to the parent after its last line.
    for first, last, name in spans:
        events[first] = name
        after = last + 1
        if after not in events:
            parent = name.rpartition(".")[0] or MODULE
            events[after] = parent
    ordered = sorted(events.items())
    return ScopeMap(tuple(k for k, _ in ordered), tuple(v for _, v in ordered))


# The fields that hold statements, or what holds them, in the order of the source.
_BLOCKS = ("body", "handlers", "cases", "orelse", "finalbody")


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
    """The definitions directly in a scope, including those in its if and try blocks."""
    found: list[Definition] = []
    for block in _BLOCKS:
        for child in getattr(node, block, ()):
            if isinstance(child, Definition):
                found.append(child)
            else:
                found += _definitions(child)
    return found
