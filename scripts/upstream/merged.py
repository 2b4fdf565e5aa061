"""An AITER that is no base of the overlay, and needs no patch: upstream has the change.

The tree's own code decides: it is followed from the scale's buffer to the return value
(:mod:`xscale.kernels`). A tree that holds lines of the series where a base has them may
be a base with somebody's edits, so it is refused like any other tree.
"""

from __future__ import annotations

from pathlib import Path

from overlaykit.applying.targets import FoundTarget
from overlaykit.applying.transaction import interrupted
from overlaykit.planning.landing import plan_drifted
from overlaykit.planning.plan import Standing, State, locate
from overlaykit.sources.bases import pinned_base
from xscale.aiter_tree import flatten_here
from xscale.numeric.layout import ScaleLayout
from xscale.sites import FLATTEN, PARAMETER

_OURS = (State.APPLIED, State.UPSTREAMED)


def upstream_has_it(root: Path, one: FoundTarget) -> str:
    """Where a tree has what the series adds, as a sentence; empty if it has not, or if
    it may be a base with edits."""
    position = locate(one.carried, one.tree)
    if position.standing(one.carried) is not Standing.DRIFTED or interrupted(one.tree):
        return ""
    row = flatten_here(one.tree)
    if row is None or not ScaleLayout(row.layout).usable or _may_be_ours(root, one):
        return ""
    return (
        f"upstream has the change: {FLATTEN} at {row.path}:{row.line} takes "
        f"{PARAMETER} and returns its scale {row.layout}; nothing to apply"
    )


def _may_be_ours(root: Path, one: FoundTarget) -> bool:
    if all(one.tree.read(path) is None for path in one.carried.series.paths):
        return False
    with pinned_base(root, one.carried, one.tree.root) as base:
        if base is None:
            return True
        hunks = plan_drifted(one.carried, one.tree, base).hunks
    return any(hunk.state in _OURS for hunk in hunks)
