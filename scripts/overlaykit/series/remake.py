"""Makes patch files from file contents.

Git writes the diff, with every option fixed that a user's configuration could change.
So the same contents give the same bytes everywhere, and making a patch again from its
own contents reproduces it byte for byte.
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
    """Make the patch for these changes, with the given header.

    Where three lines of context fit more than one place in the file, the diff gets as
    many lines as it needs. Raises InputError if a file does not change, or if a hunk's
    place is not unique with the most context.
    """
    diffs = []
    for path, change in sorted(changes.items()):
        if change.before == change.after:
            raise InputError(f"{name} would not change {path}")
        diffs.append(_diff(name, path, change, store))
    return parse_patch(name, header + b"".join(diffs))


def with_sites(header: bytes, added: Mapping[str, tuple[str, ...]]) -> bytes:
    """The patch header with more scopes added at the end of X-Sites, one per line."""
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
        repeated = [h for h in parsed.hunks if len(places.of(h.old)) != 1]
        if not repeated:
            return diff
    finding = Finding(
        "the context is not unique",
        path=path,
        line=repeated[0].old_start,
        patch=name,
        hunk=repeated[0].number,
        expected=f"one place, with up to {_MOST_CONTEXT} lines of context",
        found=f"at lines {listed(places.of(repeated[0].old))}",
        next_step="change the lines around it too, or split the patch",
    )
    raise InputError(f"{name} could land in more than one place", (finding,))
