"""Patch files made from contents: what a series says after its files have changed.

The diff is git's, with everything fixed that a user's configuration could change, so
that the same contents give the same bytes everywhere: a patch that was made so and is
made again from its own contents comes out byte for byte.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from overlaykit.core.errors import Finding, InputError
from overlaykit.repository.merge import MergeStore
from overlaykit.series.patches import Patch, Places, listed, parse_patch, split_lines

_CONTEXT = 3
_MOST_CONTEXT = 24


@dataclass(frozen=True)
class Contents:
    """A file before and after a patch."""

    mode: str
    before: bytes
    after: bytes


def remake(
    name: str, header: bytes, changes: Mapping[str, Contents], store: MergeStore
) -> Patch:
    """The patch that makes these changes, under the header it had.

    A file in which three lines of context leave a hunk without a place of its own gets
    as many as are needed. Raises InputError where a file does not change, and where
    even the whole of a function would not tell a hunk's place.
    """
    diffs = []
    for path, change in sorted(changes.items()):
        if change.before == change.after:
            raise InputError(f"{name} would not change {path}")
        diffs.append(_diff(name, path, change, store))
    return parse_patch(name, header + b"".join(diffs))


def with_sites(header: bytes, added: Mapping[str, tuple[str, ...]]) -> bytes:
    """A patch header whose X-Sites names more scopes, a line for each at its end."""
    lines = split_lines(header)
    at = next(n for n, line in enumerate(lines) if line.startswith(b"X-Sites:")) + 1
    while at < len(lines) and lines[at][:1] in (b" ", b"\t"):
        at += 1
    rows = [f" {scope}: {' '.join(sites)}\n" for scope, sites in added.items()]
    return b"".join([*lines[:at], *(row.encode() for row in rows), *lines[at:]])


def _diff(name: str, path: str, change: Contents, store: MergeStore) -> bytes:
    places = Places(split_lines(change.before))
    for context in range(_CONTEXT, _MOST_CONTEXT):
        diff = store.diff(path, change.mode, change.before, change.after, context)
        [parsed] = parse_patch(name, diff).files
        astray = [h for h in parsed.hunks if len(places.of(h.old)) != 1]
        if not astray:
            return diff
    finding = Finding(
        "the context is not unique",
        path=path,
        line=astray[0].old_start,
        patch=name,
        hunk=astray[0].number,
        expected=f"one place, with up to {_MOST_CONTEXT} lines of context",
        found=f"at lines {listed(places.of(astray[0].old))}",
        next_step="change the lines around it as well, or split the patch",
    )
    raise InputError(f"{name} could land in more than one place", (finding,))
