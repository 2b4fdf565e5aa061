"""Carried series for the suite: one patch of the real series, or one made on the spot.

The engine takes a whole :class:`Carried`; a scenario is about one patch, and the
property test about one that no release has ever seen.
"""

from __future__ import annotations

import difflib
from dataclasses import replace

import msgspec

from overlaykit.core.objects import blob_id
from overlaykit.series.carried import Carried
from overlaykit.series.lock import LockedFile, LockedHunk, LockedPatch, hunk_scopes
from overlaykit.series.patches import Patch, apply_hunks, parse_patch, split_lines
from overlaykit.series.quilt import Series
from overlaykit.series.scopes import map_scopes
from overlaykit.trees.tree import EditedTree, Tree

_NOT_UNIQUE = "the context of hunk {} is not unique"


def pick(carried: Carried, pin: Tree, number: str) -> tuple[Carried, Tree]:
    """One patch of the series, and the pin as the patches before it leave its files."""
    contents: dict[str, bytes | None] = {}
    for patch, locked in zip(carried.series.patches, carried.lock.patches, strict=True):
        if patch.name.startswith(number):
            own = {f.path: contents[f.path] for f in patch.files if f.path in contents}
            return _only(carried, patch, locked), EditedTree(pin, own)
        for diff in patch.files:
            before = contents.get(diff.path) or pin.read(diff.path) or b""
            contents[diff.path] = apply_hunks(before, diff.hunks)
    raise LookupError(number)


def make(template: Carried, path: str, old: bytes, new: bytes) -> Carried:
    """A one-patch series that makes ``new`` of ``old``; the rest is the template's.

    Raises ValueError where the real lock would refuse it: context that is not unique,
    or a hunk in two scopes.
    """
    patch = parse_patch("0001-made.patch", _diff(path, old, new))
    [diff] = patch.files
    before, after = map_scopes(old), map_scopes(new)
    if before is None or after is None:
        raise ValueError("no Python")
    hunks = []
    for hunk in diff.hunks:
        if count_block(old, hunk.old) != 1:
            raise ValueError(_NOT_UNIQUE.format(hunk.number))
        scopes = hunk_scopes(hunk, before, after)
        if len(scopes) != 1:
            raise ValueError(f"hunk {hunk.number} lies in {sorted(scopes)}")
        hunks.append(LockedHunk(scopes.pop(), ()))
    file = LockedFile(path, "100644", diff.before, diff.after, tuple(hunks))
    return _only(template, patch, LockedPatch(patch.name, patch.sha256, (file,)))


def count_block(data: bytes, block: tuple[bytes, ...]) -> int:
    """How often a run of lines stands in a file."""
    lines = split_lines(data)
    size = len(block)
    return sum(
        tuple(lines[at : at + size]) == block for at in range(len(lines) - size + 1)
    )


def _only(carried: Carried, patch: Patch, locked: LockedPatch) -> Carried:
    lock = msgspec.structs.replace(carried.lock, patches=(locked,), new_files=())
    return replace(carried, series=Series((patch,)), new_files=(), lock=lock)


def _diff(path: str, old: bytes, new: bytes) -> bytes:
    body = difflib.diff_bytes(
        difflib.unified_diff,
        split_lines(old),
        split_lines(new),
        f"a/{path}".encode(),
        f"b/{path}".encode(),
    )
    head = (
        f"diff --git a/{path} b/{path}\nindex {blob_id(old)}..{blob_id(new)} 100644\n"
    )
    return head.encode() + b"".join(body)
