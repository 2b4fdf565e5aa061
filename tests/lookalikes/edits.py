"""Edits on real source text, as upstream's developers make them.

Each one fails loudly where the text is not there once: a drift that changes nothing
would make every tool look good.
"""

from __future__ import annotations

import ast

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def swap(text: str, old: str, new: str, times: int = 1) -> str:
    """``text`` with ``old`` replaced, which must occur ``times`` times."""
    found = text.count(old)
    if found != times:
        raise ValueError(f"{old!r} occurs {found} times, not {times}")
    return text.replace(old, new)


def _span(text: str, scope: str) -> tuple[int, int]:
    """The lines of a definition, from 0, end exclusive."""
    nodes: list[ast.stmt] = ast.parse(text).body
    found: Definition | None = None
    for name in scope.split("."):
        named = [
            node for node in nodes if isinstance(node, Definition) and node.name == name
        ]
        [found] = named
        nodes = found.body
    if found is None:
        raise ValueError(scope)
    first = min([found.lineno, *(d.lineno for d in found.decorator_list)])
    return first - 1, found.end_lineno or first


def take(text: str, scope: str) -> str:
    """The source of a definition."""
    first, last = _span(text, scope)
    return "".join(text.splitlines(True)[first:last])


def put(text: str, scope: str, block: str) -> str:
    """``text`` with a definition replaced by ``block``."""
    first, last = _span(text, scope)
    lines = text.splitlines(True)
    return "".join(lines[:first]) + block + "".join(lines[last:])


def above(text: str, scope: str, block: str) -> str:
    """``text`` with a new definition above another one."""
    gap = "\n" if block.startswith(" ") else "\n\n"
    return put(text, scope, block + gap + take(text, scope))


def below(text: str, scope: str, block: str) -> str:
    """``text`` with a new definition below another one."""
    gap = "\n" if block.startswith(" ") else "\n\n"
    return put(text, scope, take(text, scope) + gap + block)


def drop(text: str, scope: str) -> str:
    """``text`` without a definition, and without the blank lines before it."""
    first, last = _span(text, scope)
    lines = text.splitlines(True)
    while first and not lines[first - 1].strip():
        first -= 1
    return "".join(lines[:first] + lines[last:])


def deeper(block: str) -> str:
    """``block``, one level deeper."""
    return "".join(
        f"    {line}" if line.strip() else line for line in block.splitlines(True)
    )
