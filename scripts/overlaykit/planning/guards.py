"""The if, for, while, try and with blocks around a line inside its function.

A scope may contain two similar blocks, and the module scope spans the whole file. The
conditions around a line distinguish such places.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable
from functools import lru_cache

from overlaykit.series.patches import Change
from overlaykit.series.scopes import Definition, map_scopes, parsed


def guards_of(
    data: bytes, changes: Iterable[Change], added: bool
) -> set[tuple[str, ...]]:
    """The blocks around the changed lines of code, inside their definition."""
    if map_scopes(data) is None:
        raise ValueError("the file does not parse as Python")
    known = _known(data)
    wanted = [
        start + i
        for change in changes
        for start, lines in (
            [(change.new_line, change.added)]
            if added
            else [(change.old_line, change.removed)]
        )
        for i, line in enumerate(lines)
        if line.strip() and not line.strip().startswith(b"#")
    ]
    for line in wanted:
        if line not in known:
            module = parsed(data)
            assert module is not None
            known[line] = _around(module, line)
    return {known[line] for line in wanted}


@lru_cache(maxsize=64)
def _known(data: bytes) -> dict[int, tuple[str, ...]]:
    """The blocks around the lines of a file that were asked about. The hunks of a file
    ask about the same lines again, and its syntax tree is large."""
    del data
    return {}


_Block = (ast.stmt, ast.ExceptHandler, ast.match_case)


def _around(module: ast.Module, line: int) -> tuple[str, ...]:
    """The conditions, loops and other blocks around a line, outermost first."""
    guards: tuple[str, ...] = ()
    node: ast.AST = module
    while inner := _inner(node, line):
        branch, child = inner
        if isinstance(node, Definition):
            guards = ()
        elif node is not module:
            guards = (*guards, _guard(node, branch))
        node = child
    return guards


def _inner(node: ast.AST, line: int) -> tuple[str, ast.AST] | None:
    """The statement that contains a line, and the branch that it belongs to."""
    for branch, children in ast.iter_fields(node):
        for child in _blocks(children):
            if _covers(child, line):
                return branch, child
    return None


def _blocks(children: object) -> list[ast.AST]:
    if not isinstance(children, list):
        return []
    return [child for child in children if isinstance(child, _Block)]


def _covers(node: ast.AST, line: int) -> bool:
    if isinstance(node, ast.match_case):
        return node.pattern.lineno <= line <= (node.body[-1].end_lineno or 0)
    assert isinstance(node, ast.stmt | ast.ExceptHandler)
    first = [node.lineno]
    if isinstance(node, Definition):
        first += [decorator.lineno for decorator in node.decorator_list]
    return min(first) <= line <= (node.end_lineno or 0)


def _guard(node: ast.AST, branch: str) -> str:
    """A block's kind, branch and condition."""
    parts = [
        ast.unparse(child)
        for child in ast.iter_child_nodes(node)
        if not isinstance(child, _Block)
    ]
    kind = type(node).__name__.lower()
    return " ".join([kind if branch == "body" else f"{branch} of {kind}", *parts])
