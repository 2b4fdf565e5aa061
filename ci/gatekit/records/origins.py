"""Reads from a served tree what it is: digests of the files that are really there."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from gatekit.records import runs as records
from overlaykit.applying.inspection import inspect
from overlaykit.applying.targets import find_targets
from overlaykit.core.digests import sha256
from overlaykit.core.errors import Finding, InputError
from overlaykit.planning.plan import Standing, locate
from overlaykit.series.carried import load_overlay
from overlaykit.series.lock import LOCK

NO_SERIES = "none"


def of_trees(paths: Iterable[Path], root: Path) -> records.Origin:
    """The origin of an arm that serves these trees.

    ``tree`` is, for each target, the git tree id of the files in the overlay.
    ``series`` is the digest of the overlay's lock if every tree has the whole series,
    and ``none`` if no tree has any of it. Raises InputError for any other state, and
    for a tree that the overlay was not made for.
    """
    found = find_targets(paths, load_overlay(root))
    standings: dict[str, Standing] = {}
    digests = []
    for one in found:
        if one.mismatch:
            raise InputError(f"{one.tree.name} is not a known tree", one.mismatch)
        name = one.carried.name
        standings[name] = locate(one.carried, one.tree).standing(one.carried)
        digests.append(f"{name} {inspect(one.carried, one.tree).digest}")
    if set(standings.values()) == {Standing.PRISTINE}:
        series = NO_SERIES
    elif set(standings.values()) == {Standing.APPLIED}:
        series = sha256((root / LOCK).read_bytes())
    else:
        finding = Finding(
            "every tree of an arm must have the whole series, or none of it",
            path=" ".join(one.tree.name for one in found),
            found=", ".join(f"{name}: {s.value}" for name, s in standings.items()),
            next_step="see scripts/apply.py --status, and scripts/verify.py",
        )
        raise InputError("the trees have part of the series", (finding,))
    return records.Origin(tree="; ".join(sorted(digests)), series=series)
