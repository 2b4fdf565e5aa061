"""What a served tree is, read off the tree itself: digests that nobody has to copy,
and that are of what is there and not of what should be."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from gatekit.records import runs as records
from overlaykit.applying.inspection import inspect
from overlaykit.applying.targets import find_targets
from overlaykit.core.errors import Finding, InputError
from overlaykit.planning.plan import Standing, locate
from overlaykit.series.carried import load_overlay
from overlaykit.series.lock import LOCK

NO_SERIES = "none"


def of_trees(paths: Iterable[Path], root: Path) -> records.Origin:
    """Of the trees that one arm serves. ``tree`` is, per target, the git tree id of the
    files that the overlay answers for; ``series`` the digest of the overlay's lock
    where the whole series is on every tree, and ``none`` where nothing of it is.

    Raises InputError where they are neither, or not ones that the overlay is made for.
    """
    found = find_targets(paths, load_overlay(root))
    standings: dict[str, Standing] = {}
    digests = []
    for one in found:
        if one.mismatch:
            raise InputError(f"{one.tree.name} is no known tree", one.mismatch)
        name = one.carried.name
        standings[name] = locate(one.carried, one.tree).standing(one.carried)
        digests.append(f"{name} {inspect(one.carried, one.tree).digest}")
    if set(standings.values()) == {Standing.PRISTINE}:
        series = NO_SERIES
    elif set(standings.values()) == {Standing.APPLIED}:
        lock = (root / LOCK).read_bytes()
        series = f"sha256:{hashlib.sha256(lock).hexdigest()}"
    else:
        finding = Finding(
            "an arm is served from trees with the whole series, or from ones without",
            path=" ".join(one.tree.name for one in found),
            found=", ".join(f"{name}: {s.value}" for name, s in standings.items()),
            next_step="see scripts/apply.py --status, and scripts/verify.py",
        )
        raise InputError("no whole series, and no release", (finding,))
    return records.Origin(tree="; ".join(sorted(digests)), series=series)
