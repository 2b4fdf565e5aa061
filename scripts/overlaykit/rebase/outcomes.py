"""The outcome of each hunk on the new base, and the patch headers that record it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

from overlaykit.core.errors import InputError
from overlaykit.planning.plan import State
from overlaykit.series.patches import Patch
from overlaykit.series.quilt import read_header


class HunkOutcome(Enum):
    """The outcome of a hunk on the new base."""

    CARRIED = "carried"
    MOVED = "moved"
    REGENERATED = "regenerated"
    RESOLVED = "resolved by hand"
    DROPPED = "dropped"


@dataclass(frozen=True)
class RebasedHunk:
    """A hunk on the new base; ``path`` and ``scope`` are its place there."""

    patch: str
    number: int
    was_path: str
    was_scope: str
    sites: tuple[str, ...]
    outcome: HunkOutcome
    landing: State | None
    path: str | None
    scope: str
    detail: str = ""

    @property
    def kept(self) -> bool:
        return self.outcome is not HunkOutcome.DROPPED


def header_of(patch: Patch, hunks: Iterable[RebasedHunk]) -> bytes:
    """The patch's header, with the sites' scopes on the new base in X-Sites."""
    scopes: dict[str, dict[str, None]] = {}
    for hunk in hunks:
        if hunk.kept and hunk.sites:
            scopes.setdefault(hunk.scope, {}).update(dict.fromkeys(hunk.sites))
    wanted = {scope: tuple(names) for scope, names in scopes.items()}
    if wanted == read_header(patch).sites:
        return patch.header
    rows = [f"{scope}: {' '.join(names)}" for scope, names in wanted.items()]
    field_ = "X-Sites:" + "".join(
        f"{' ' if not number else chr(10) + ' '}{row}"
        for number, row in enumerate(rows)
    )
    header, count = re.subn(
        rb"^X-Sites:[^\n]*\n(?:[ \t][^\n]*\n)*",
        lambda _: field_.encode() + b"\n",
        patch.header,
        flags=re.M,
    )
    if count != 1:
        raise InputError(
            f"{patch.name}: the header has {count} X-Sites fields, not one"
        )
    return header
