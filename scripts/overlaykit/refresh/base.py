"""Finds the base that an edited tree belongs to."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from overlaykit.applying.targets import FoundTarget, find_targets
from overlaykit.core.errors import Finding, InputError
from overlaykit.refresh.edits import distance
from overlaykit.series.carried import Carried
from overlaykit.sources.bases import fetch_base


def find_base(root: Path, path: Path, overlay: Mapping[str, Carried]) -> FoundTarget:
    """The target at ``path``, with the base that the tree belongs to.

    Blob ids identify the base. If every touched file is edited, it is the base whose
    result is nearest to the tree. Raises InputError if there are several targets or
    several nearest bases.
    """
    found = find_targets([path], overlay)
    if len(found) > 1:
        names = ", ".join(one.carried.name for one in found)
        step = "name the directory of one package"
        finding = Finding(f"contains {names}", expected="one target", next_step=step)
        raise InputError("refresh takes one tree", (finding,))
    [one] = found
    if not one.mismatch:
        return one
    package = one.carried.target.package
    bases = [base for base in overlay.values() if base.target.package == package]
    gaps = {
        base.name: distance(base, one.tree, fetch_base(root, base)) for base in bases
    }
    nearest = min(bases, key=lambda base: gaps[base.name])
    if list(gaps.values()).count(gaps[nearest.name]) > 1:
        raise InputError(f"{one.tree.name} may be several bases", one.mismatch)
    return FoundTarget(nearest, one.tree)
