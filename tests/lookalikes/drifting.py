"""A file that drifts away from the pin, line by line.

Each line records the pinned line that it is. A copied line is not a pinned line; a
rewritten line keeps its identity and loses its text.
"""

from __future__ import annotations

import ast
import random
from dataclasses import dataclass

from lookalikes.edits import Definition
from overlaykit.series.carried import Carried
from overlaykit.series.patches import Hunk


@dataclass(frozen=True)
class Line:
    """A line. ``origin`` is its number in the pinned file, counted from 1.

    For a line of the hunk that upstream adopted, it is the negative of its number; for
    any other line, None.
    """

    text: str
    origin: int | None = None


@dataclass(frozen=True)
class Case:
    """A pinned file and the one hunk that is carried on top of it."""

    name: str
    carried: Carried
    old: str
    new: str

    @property
    def hunk(self) -> Hunk:
        return self.carried.series.patches[0].files[0].hunks[0]

    @property
    def scope(self) -> str:
        return self.carried.lock.patches[0].files[0].hunks[0].scope


@dataclass
class Drift:
    """A file that drifts away from the pin."""

    case: Case
    random: random.Random
    lines: list[Line]
    done: list[str]

    @property
    def text(self) -> str:
        return "".join(line.text for line in self.lines)

    def at(self, origin: int) -> int | None:
        """The current index of a pinned line; None if it is gone."""
        places = [i for i, line in enumerate(self.lines) if line.origin == origin]
        return places[0] if places else None

    def place(self) -> int:
        """The index of the hunk's first changed line, or of the line before it."""
        change = self.case.hunk.changes[0]
        for origin in range(change.old_line - (not change.removed), 0, -1):
            if (place := self.at(origin)) is not None:
                return place
        return 0


def span_of(node: ast.stmt) -> range:
    first = [node.lineno]
    if isinstance(node, Definition):
        first += [decorator.lineno for decorator in node.decorator_list]
    return range(min(first) - 1, node.end_lineno or node.lineno)


def home_of(drift: Drift) -> tuple[ast.Module, list[ast.stmt]]:
    """The statements around the hunk's place, outermost first."""
    module, place = ast.parse(drift.text), drift.place()
    path: list[ast.stmt] = []
    node: ast.AST = module
    while True:
        inner = [s for s in ast.iter_child_nodes(node) if _holds(s, place)]
        if not inner:
            return module, path
        [node] = inner[:1]
        if isinstance(node, ast.stmt):
            path.append(node)


def _holds(node: ast.AST, place: int) -> bool:
    if isinstance(node, ast.stmt):
        return place in span_of(node)
    if isinstance(node, ast.ExceptHandler):
        return place in range(node.lineno - 1, node.end_lineno or 0)
    return False


def definition_of(drift: Drift) -> ast.stmt | None:
    """The innermost definition around the hunk's place; sometimes its class."""
    _, path = home_of(drift)
    found = [node for node in path if isinstance(node, Definition)]
    if not found:
        return None
    return found[0] if drift.random.random() < 0.25 else found[-1]


def copied(lines: list[Line], deeper: int = 0) -> list[Line]:
    return [Line(indented(line.text, deeper)) for line in lines]


def indented(text: str, by: int) -> str:
    return " " * by + text if text.strip() else text


def plain(drift: Drift, *texts: str) -> list[Line]:
    return [Line(f"{text}\n") for text in texts]


def put(drift: Drift, at: int, lines: list[Line]) -> None:
    drift.lines[at:at] = lines


def body_of(module: ast.Module, statement: ast.stmt) -> list[ast.stmt]:
    for node in ast.walk(module):
        for _, value in ast.iter_fields(node):
            if isinstance(value, list) and statement in value:
                return value
    raise LookupError(statement)


def spot_of(drift: Drift, old_line: int, removed: tuple[bytes, ...]) -> range | None:
    """The place of a change: its pinned lines, if they are unchanged."""
    if not removed:
        before, after = drift.at(old_line - 1), drift.at(old_line)
        if before is not None:
            return range(before + 1, before + 1)
        return range(after, after) if after is not None else None
    places = [drift.at(old_line + i) for i in range(len(removed))]
    first = places[0]
    if first is None or places != list(range(first, first + len(places))):
        return None
    texts = [line.text for line in drift.lines[first : first + len(places)]]
    if texts != [line.decode() for line in removed]:
        return None
    return range(first, first + len(places))
