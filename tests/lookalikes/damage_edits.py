"""Edits that damage or remove the original, and unrelated edits.

Each returns False where it has nothing to work on.
"""

from __future__ import annotations

import ast
import keyword
import re
from collections.abc import Callable
from dataclasses import replace

from lookalikes.drifting import (
    Drift,
    Line,
    body_of,
    definition_of,
    home_of,
    plain,
    put,
    span_of,
    spot_of,
)
from lookalikes.edits import Definition


def damage(drift: Drift) -> bool:
    """Rewrite a line that the hunk removes, or one next to its place."""
    change = drift.random.choice(drift.case.hunk.changes)
    end = change.old_line + len(change.removed)
    removed = list(range(change.old_line, end))
    origins = removed or [change.old_line - 1, change.old_line]
    if drift.random.random() < 0.3:
        origins = [change.old_line - 1, *removed, end]
    if drift.random.random() < 0.3:
        return _each(drift, origins, rewrite_line)
    return rewrite_line(drift, drift.random.choice(origins))


def damage_all(drift: Drift) -> bool:
    """Rewrite all lines around the hunk's place."""
    hunk = drift.case.hunk
    wide = range(hunk.old_start, hunk.old_start + len(hunk.old))
    narrow = [
        c.old_line + i for c in hunk.changes for i in range(-1, len(c.removed) + 1)
    ]
    return _each(drift, list(drift.random.choice((narrow, wide))), rewrite_line)


def delete_original(drift: Drift) -> bool:
    """Delete the statement that the hunk changes."""
    module, path = home_of(drift)
    if not path or isinstance(path[-1], Definition):
        return False
    if len(body_of(module, path[-1])) < 2:
        return False
    span = span_of(path[-1])
    del drift.lines[span.start : span.stop]
    return True


def _each(drift: Drift, origins: list[int], edit: Callable[[Drift, int], bool]) -> bool:
    done = [edit(drift, origin) for origin in dict.fromkeys(origins)]
    return any(done)


def rewrite_line(drift: Drift, origin: int) -> bool:
    at = drift.at(origin)
    if at is None:
        return False
    text = drift.lines[at].text
    words = [
        m for m in re.finditer(r"\b[A-Za-z_]\w*\b", text) if not keyword.iskeyword(m[0])
    ]
    if not words or re.match(r"\s*(async def|def|class|from|import|@)\b", text):
        return False
    word = drift.random.choice(words)
    new = f"{text[: word.start()]}{word[0]}_v2{text[word.end() :]}"
    drift.lines[at] = replace(drift.lines[at], text=new)
    return True


def take(drift: Drift) -> bool:
    """Upstream adopts the hunk."""
    for change in drift.case.hunk.changes:
        spot = spot_of(drift, change.old_line, change.removed)
        if spot is None:
            return False
    for change in reversed(drift.case.hunk.changes):
        spot = spot_of(drift, change.old_line, change.removed)
        assert spot is not None
        added = [
            Line(text.decode(), -(change.new_line + i))
            for i, text in enumerate(change.added)
        ]
        drift.lines[spot.start : spot.stop] = added
    return True


def revert(drift: Drift) -> bool:
    """Upstream reverts the hunk, at its original place."""
    news = {
        -(c.new_line + i) for c in drift.case.hunk.changes for i in range(len(c.added))
    }
    if not any(line.origin in news for line in drift.lines):
        return False
    for change in drift.case.hunk.changes:
        mine = {-(change.new_line + i) for i in range(len(change.added))}
        places = [i for i, line in enumerate(drift.lines) if line.origin in mine]
        if not places:
            continue
        olds = [
            Line(text.decode(), change.old_line + i)
            for i, text in enumerate(change.removed)
        ]
        drift.lines[places[0] : places[-1] + 1] = olds
    return True


def rewrite_taken(drift: Drift) -> bool:
    """Rewrite a line that upstream adopted."""
    news = [
        -(c.new_line + i) for c in drift.case.hunk.changes for i in range(len(c.added))
    ]
    return bool(news) and rewrite_line(drift, drift.random.choice(news))


def add_noise(drift: Drift) -> bool:
    """Add a line somewhere."""
    module = ast.parse(drift.text)
    nodes = [n for n in ast.walk(module) if isinstance(n, ast.stmt)]
    near = drift.random.random() < 0.5
    if near:
        home = definition_of(drift)
        nodes = [n for n in ast.walk(home or module) if isinstance(n, ast.stmt)]
    node = drift.random.choice(nodes)
    margin = " " * node.col_offset
    text = f"{margin}noise_{drift.random.randint(1, 9)}()"
    put(drift, span_of(node).start, plain(drift, text))
    return True


def rewrite_somewhere(drift: Drift) -> bool:
    """Rewrite a line, mostly far from the place."""
    hunk = drift.case.hunk
    near = range(hunk.old_start, hunk.old_start + len(hunk.old))
    origins = [ln.origin for ln in drift.lines if ln.origin and ln.origin not in near]
    return bool(origins) and rewrite_line(drift, drift.random.choice(origins))


def rewrite_context(drift: Drift) -> bool:
    """Rewrite a line of the hunk's context."""
    hunk = drift.case.hunk
    changed = {c.old_line + i for c in hunk.changes for i in range(len(c.removed))}
    near = range(hunk.old_start, hunk.old_start + len(hunk.old))
    origins = [origin for origin in near if origin not in changed]
    return bool(origins) and rewrite_line(drift, drift.random.choice(origins))
