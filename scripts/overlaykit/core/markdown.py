"""Tables in Markdown."""

from __future__ import annotations

from collections.abc import Iterable


def table_lines(header: Iterable[str], rows: Iterable[Iterable[str]]) -> list[str]:
    """The lines of a table; its cells are Markdown already."""
    head = tuple(header)
    lines = (head, ("---",) * len(head), *rows)
    return [f"| {' | '.join(cells)} |" for cells in lines]
