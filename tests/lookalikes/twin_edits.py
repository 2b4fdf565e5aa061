"""Edits that make twins of a hunk's place.

Each returns False where it has nothing to work on.
"""

from __future__ import annotations

import ast
import re
from dataclasses import replace

from lookalikes.drifting import (
    Drift,
    Line,
    body_of,
    copied,
    definition_of,
    home_of,
    indented,
    plain,
    put,
    span_of,
)
from lookalikes.edits import Definition


def _renamed(lines: list[Line], name: str, new: str) -> list[Line]:
    """A definition under another name."""
    done = list(lines)
    for at, line in enumerate(done):
        text, count = re.subn(
            rf"\b(def|class) {name}\b", rf"\1 {new}", line.text, count=1
        )
        if count:
            done[at] = replace(line, text=text)
            break
    return done


def define_again(drift: Drift) -> bool:
    """Define the same name twice."""
    node = definition_of(drift)
    if node is None:
        return False
    span = span_of(node)
    copy = [*copied(drift.lines[span.start : span.stop]), Line("\n")]
    put(drift, drift.random.choice((span.start, span.stop)), copy)
    return True


def define_in_branches(drift: Drift) -> bool:
    """Define it in both branches of an if or a try."""
    node = definition_of(drift)
    if node is None:
        return False
    span = span_of(node)
    margin = " " * node.col_offset
    own = drift.lines[span.start : span.stop]
    original = [replace(ln, text=indented(ln.text, 4)) for ln in own]
    twin = copied(own, 4)
    first, second = drift.random.choice(
        (("if FLAG:", "else:"), ("try:", "except ImportError:"))
    )
    branches = [original, twin]
    drift.random.shuffle(branches)
    drift.lines[span.start : span.stop] = [
        Line(f"{margin}{first}\n"),
        *branches[0],
        Line(f"{margin}{second}\n"),
        *branches[1],
    ]
    return True


def define_in_a_branch(drift: Drift) -> bool:
    """Define it a second time under an if, after or before the original."""
    node = definition_of(drift)
    if node is None:
        return False
    span = span_of(node)
    margin = " " * node.col_offset
    own = drift.lines[span.start : span.stop]
    twin = [Line(f"{margin}if FLAG:\n"), *copied(own, 4)]
    put(drift, drift.random.choice((span.start, span.stop)), twin)
    return True


def define_within(drift: Drift) -> bool:
    """Put a copy into the definition itself."""
    node = definition_of(drift)
    if not isinstance(node, Definition):
        return False
    span = span_of(node)
    own = drift.lines[span.start : span.stop]
    at = span_of(node.body[-1]).start
    deeper = node.body[-1].col_offset - node.col_offset
    put(drift, at, copied(own, deeper))
    return True


def rename(drift: Drift) -> bool:
    """Rename the original and leave a copy under the old name."""
    node = definition_of(drift)
    if not isinstance(node, Definition):
        return False
    span = span_of(node)
    own = drift.lines[span.start : span.stop]
    drift.lines[span.start : span.stop] = _renamed(own, node.name, f"{node.name}_new")
    copy = [*copied(own), Line("\n")]
    where = (span.start, span.stop, _far(drift, node))
    put(drift, drift.random.choice(where), copy)
    return True


def _far(drift: Drift, node: ast.stmt) -> int:
    """Before or after a definition beside another one, or the end of the file."""
    module = ast.parse(drift.text)
    nodes = [
        other
        for other in ast.walk(module)
        if isinstance(other, Definition) and other.col_offset == node.col_offset
    ]
    other = drift.random.choice(nodes)
    if node.col_offset and not _same_parent(module, node.lineno, other.lineno):
        return span_of(node).stop
    return span_of(other).start


def _same_parent(module: ast.Module, one: int, two: int) -> bool:
    return any(
        isinstance(node, ast.ClassDef)
        and {one, two} <= {child.lineno for child in node.body}
        for node in ast.walk(module)
    )


def rebind(drift: Drift) -> bool:
    """Bind a renamed copy to the name of the original, further down."""
    node = definition_of(drift)
    if not isinstance(node, Definition):
        return False
    span = span_of(node)
    margin = " " * node.col_offset
    own = drift.lines[span.start : span.stop]
    copy = _renamed(copied(own), node.name, f"{node.name}_other")
    form = drift.random.choice(
        ("{0} = {0}_other", "from other import {0}", "{0} = wrapped({0}_other)")
    )
    put(drift, span.stop, [*copy, Line(f"{margin}{form.format(node.name)}\n")])
    return True


def copy_block(drift: Drift) -> bool:
    """Copy the statements around the place within their block."""
    module, path = home_of(drift)
    if not path or isinstance(path[-1], Definition):
        return False
    body = body_of(module, path[-1])
    at = body.index(path[-1])
    first = drift.random.randint(max(0, at - 3), at)
    last = drift.random.randint(at, min(len(body) - 1, at + 3))
    span = range(span_of(body[first]).start, span_of(body[last]).stop)
    copy = copied(drift.lines[span.start : span.stop])
    # Other edges: the lines around the copy occur nowhere else.
    margin = " " * path[-1].col_offset
    edges = [plain(drift, f"{margin}edge_{n}()") for n in (1, 2)]
    copy = [
        *(edges[0] if drift.random.random() < 0.5 else []),
        *copy,
        *(edges[1] if drift.random.random() < 0.5 else []),
    ]
    outside = [n for n in range(len(body)) if not first < n <= last]
    target = body[drift.random.choice(outside)]
    put(drift, span_of(target).start, copy)
    return True


def copy_block_below(drift: Drift) -> bool:
    """Copy them to the end of the block."""
    module, path = home_of(drift)
    if not path or isinstance(path[-1], Definition):
        return False
    body = body_of(module, path[-1])
    at = body.index(path[-1])
    first = drift.random.randint(max(0, at - 2), at)
    last = drift.random.randint(at, min(len(body) - 1, at + 2))
    span = range(span_of(body[first]).start, span_of(body[last]).stop)
    copy = copied(drift.lines[span.start : span.stop])
    end = span_of(body[-1])
    leaves = isinstance(body[-1], ast.Return | ast.Raise | ast.Continue | ast.Break)
    put(drift, end.start if leaves else end.stop, copy)
    return True
