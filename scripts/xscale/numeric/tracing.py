"""Records which lines of a tree run, and what its functions return. Worker side."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import CodeType, FrameType
from typing import Any

_PLAIN = (str, bool, int, float, type(None))
_MOST = 60

Place = tuple[str, int]
"""A path in the tree, and a line."""


@dataclass
class Trace:
    """``last`` maps each line to the number of the event at which it ran last.

    ``tests`` are the lines whose test is described when it runs; ``seen`` maps them to
    the names in the test with their values, and ``returned`` to what the functions
    returned that the test called.
    """

    prefix: str
    tests: Mapping[Place, ast.expr] = field(default_factory=dict)
    last: dict[Place, int] = field(default_factory=dict)
    seen: dict[Place, str] = field(default_factory=dict)
    returned: dict[Place, list[str]] = field(default_factory=dict)
    now: int = 0
    _open: list[tuple[FrameType, Place]] = field(default_factory=list)

    def ran(self, path: str, first: int, last: int, before: int) -> int | None:
        """The latest event in these lines that is not later than ``before``."""
        found = [
            at
            for line in range(first, last + 1)
            if (at := self.last.get((path, line))) is not None and at <= before
        ]
        return max(found, default=None)

    def event(self, frame: FrameType, kind: str, value: Any) -> Any:
        code = frame.f_code
        if not code.co_filename.startswith(self.prefix):
            return None
        if kind == "line":
            self._line(frame, code)
        elif kind == "return" and self._open:
            caller, place = self._open[-1]
            if frame.f_back is caller:
                said = f"{code.co_name}() is {_said(value)}"
                self.returned.setdefault(place, []).append(said)
        return self.event

    def _line(self, frame: FrameType, code: CodeType) -> None:
        place = (code.co_filename.removeprefix(self.prefix), frame.f_lineno)
        self.now += 1
        self.last[place] = self.now
        while self._open and self._open[-1][0] is frame:
            self._open.pop()
        if (test := self.tests.get(place)) is not None:
            self.seen[place] = _values(test, frame)
            self.returned.pop(place, None)
            self._open.append((frame, place))


@contextmanager
def traced(trace: Trace) -> Iterator[None]:
    """Record the lines of the tree that run in this block."""
    before = sys.gettrace()
    sys.settrace(trace.event)
    try:
        yield
    finally:
        sys.settrace(before)


def _values(test: ast.expr, frame: FrameType) -> str:
    """The plain values of the names in a test."""
    known = {**frame.f_globals, **frame.f_locals}
    said = {
        node.id: _said(known[node.id])
        for node in ast.walk(test)
        if isinstance(node, ast.Name)
        and node.id in known
        and isinstance(known[node.id], _PLAIN)
    }
    return ", ".join(f"{name} is {value}" for name, value in said.items())


def _said(value: Any) -> str:
    text = repr(value) if isinstance(value, _PLAIN) else f"a {type(value).__name__}"
    return text if len(text) <= _MOST else f"{text[:_MOST]}..."
