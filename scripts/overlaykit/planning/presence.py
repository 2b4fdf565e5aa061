"""Finds the scopes of a file that contain a hunk's change."""

from __future__ import annotations

from overlaykit.series.patches import Hunk, split_lines
from overlaykit.series.scopes import map_scopes


def scopes_with(hunk: Hunk, data: bytes) -> tuple[str, ...] | None:
    """The scopes with every run of lines that the hunk adds and none that it removes.

    For a hunk that only removes lines, these are all scopes of the file that lack the
    removed lines. None if the file does not parse.
    """
    scopes = map_scopes(data)
    if scopes is None:
        return None
    texts: dict[str, bytes] = {}
    for number, line in enumerate(split_lines(data), 1):
        scope = scopes.at(number)
        texts[scope] = texts.get(scope, b"") + line
    added = [b"".join(c.added) for c in hunk.changes if c.added]
    removed = [b"".join(c.removed) for c in hunk.changes if c.removed]
    return tuple(
        scope
        for scope, text in texts.items()
        if all(_whole_lines(run, text) for run in added)
        and not any(_whole_lines(run, text) for run in removed)
    )


def _whole_lines(run: bytes, text: bytes) -> bool:
    return text.startswith(run) or b"\n" + run in text
