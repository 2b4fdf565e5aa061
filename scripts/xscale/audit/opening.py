"""Open guards in memory: their read finds the attribute that the linear has.

So the tree's own code still decides; only what it looks at is given. Lines keep their
numbers, so every place that is reported is one of the tree.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable

from overlaykit.core.errors import Finding, InputError
from overlaykit.core.syntax import parsed
from overlaykit.trees.tree import EditedTree, Tree
from xscale.audit.guards import DeadGuard


def opened(tree: Tree, guards: Iterable[DeadGuard]) -> Tree:
    """The tree with the guards open. Raises InputError if a read cannot be found."""
    changes: dict[str, bytes | None] = {}
    for guard in guards:
        before = changes.get(guard.path) or tree.read(guard.path) or b""
        changes[guard.path] = _opened(before, guard)
    return EditedTree(tree, changes)


def _opened(source: bytes, guard: DeadGuard) -> bytes:
    reads = [
        (node, other)
        for node in ast.walk(parsed(source, guard.path))
        if isinstance(node, ast.Call | ast.Attribute)
        and node.lineno <= guard.line <= (node.end_lineno or node.lineno)
        and (other := _reading(node, guard)) is not None
    ]
    if not reads:
        finding = Finding(
            f"no read of {guard.reads} is written in this line",
            path=guard.path,
            line=guard.line,
            next_step="open the guard in the tree, then run verify.py --numeric",
        )
        raise InputError(f"{guard.name} cannot be opened", (finding,))
    # The last one first: the places of the others stay. None is inside another.
    for node, other in sorted(reads, key=_start, reverse=True):
        if not any(node in ast.walk(one) and node is not one for one, _ in reads):
            source = _replaced(source, node, other)
    return source


def _start(read: tuple[ast.expr, str]) -> tuple[int, int]:
    return read[0].lineno, read[0].col_offset


def _reading(node: ast.Call | ast.Attribute, guard: DeadGuard) -> str | None:
    """What to write for this read; None if it is another one."""
    if isinstance(node, ast.Attribute):
        if node.attr != guard.reads or not isinstance(node.ctx, ast.Load):
            return None
        owner = ast.unparse(node.value)
        has = f"hasattr({owner}, {guard.reads!r})"
        return f"{owner}.{guard.reads} if {has} else {owner}.{guard.instead}"
    match node.func, node.args:
        case ast.Name(id=name), [_, ast.Constant(value=guard.reads), *_]:
            owner, _, *default = map(ast.unparse, node.args)
            second = f"{name}({', '.join((owner, repr(guard.instead), *default))})"
            if name == "hasattr":
                return f"hasattr({owner}, {guard.reads!r}) or {second}"
            if name == "getattr":
                return f"getattr({owner}, {guard.reads!r}, {second})"
    return None


def _replaced(source: bytes, node: ast.expr, other: str) -> bytes:
    """The source with the node replaced, in as many lines as before."""
    lines = source.splitlines(keepends=True)
    last = node.end_lineno or node.lineno
    before = lines[node.lineno - 1][: node.col_offset]
    after = lines[last - 1][node.end_col_offset or 0 :]
    padding = "\n" * (last - node.lineno)
    lines[node.lineno - 1 : last] = [before + f"({other}{padding})".encode() + after]
    return b"".join(lines)
