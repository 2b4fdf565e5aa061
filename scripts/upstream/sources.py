"""Where the tree of an upstream version is, and its facts.

Releases are read from their wheels and commits from a clone's objects; nothing is
unpacked or checked out.
"""

from __future__ import annotations

import atexit
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from overlaykit.core.errors import EnvironmentFailure, Finding
from overlaykit.core.versions import Order, order
from overlaykit.planning.landing import Landings
from overlaykit.repository.batch import Batch
from overlaykit.series.carried import Carried, load_overlay
from overlaykit.series.ledger import ledger
from overlaykit.series.lock import base_text
from overlaykit.sources import releases
from overlaykit.sources.bases import cached, fetch_base, pinned_base
from overlaykit.sources.releases import Release
from overlaykit.trees.tree import GitTree, Tree, WheelTree
from upstream.facts import Facts, facts_of
from upstream.outcomes import Version


@dataclass(frozen=True)
class Source:
    """One version and where its tree is: a wheel, or a commit of a clone."""

    version: Version
    place: Path
    treeish: str | None = None


def release_source(root: Path, carried: Carried, release: str) -> Source:
    """A release, fetched, recorded and checked by :func:`releases.obtain`."""
    wheel = releases.obtain(root, carried.releases, release)
    known = ledger(root).releases[carried.releases.package_dist.name][release]
    pin = pinned_order(carried)
    before = pin is not None and order(release) < pin
    return Source(Version(release, known.sha256, before_pin=before), wheel)


def pinned_order(carried: Carried) -> Order | None:
    """Where the base is among the releases; None if it is not a release."""
    dist = carried.target.dist
    return order(dist.version) if dist is not None else None


def recorded(root: Path, carried: Carried) -> tuple[Release, ...]:
    """The target's releases in the ledger, oldest first."""
    return releases.known(root, carried.releases.package_dist.name)


def compute_facts(root: Path, target: str, source: Source, run: bool = True) -> Facts:
    """The facts of one source. What trees have in common is read once in a process."""
    overlay = _overlay(root)
    carried = overlay[target]
    others = [
        other
        for other in overlay.values()
        if other.target.package == carried.target.package and other is not carried
    ]
    tree, landings = _tree_of(carried, source), _landings(root, target)
    with base_of(root, carried, source.place) as base:
        return facts_of(carried, tree, base, others, kernels(root), landings, run)


def kernels(root: Path) -> Tree | None:
    """The pinned AITER, if it is in the cache."""
    every = (one for one in _overlay(root).values() if one.target.package == "aiter")
    carried = next(every, None)
    return _cached(root, carried.name) if carried is not None else None


@cache
def _overlay(root: Path) -> dict[str, Carried]:
    return load_overlay(root)


@cache
def _landings(root: Path, target: str) -> Landings:
    """Of one series on one base."""
    del root, target
    return Landings()


@cache
def _objects(clone: Path) -> Batch:
    """Git for a clone; it ends with this process."""
    objects = Batch(clone)
    atexit.register(objects.close)
    return objects


def _cached(root: Path, target: str) -> Tree | None:
    """A pinned release from the cache, opened once."""
    key = root, target
    if key not in _opened:
        if (found := cached(root, _overlay(root)[target])) is None:
            return None
        _opened[key] = found
    return _opened[key]


_opened: dict[tuple[Path, str], Tree] = {}


def _tree_of(carried: Carried, source: Source) -> Tree:
    """The tree of a source. What belongs to it ends with this process."""
    if source.treeish is None:
        return WheelTree(source.place, carried.target.site_layout())
    return GitTree(source.place, source.treeish, _objects(source.place))


@contextmanager
def base_of(root: Path, carried: Carried, place: Path) -> Iterator[Tree]:
    """The pinned base from the cache, else the pinned files in the clone.

    The cache comes first, because a partial clone may lack the files.
    """
    if (base := _cached(root, carried.name)) is not None:
        yield base
        return
    if place.is_dir():
        with pinned_base(root, carried, place) as found:
            if found is not None:
                yield found
                return
    yield _need_base(root, carried, place)


def _need_base(root: Path, carried: Carried, place: Path) -> Tree:
    """The pinned base. Raises EnvironmentFailure if it cannot be fetched."""
    try:
        return fetch_base(root, carried)
    except EnvironmentFailure as error:
        tag = carried.target.tag
        step = "run scripts/fetch.py with access to a package index"
        if carried.lock.dist is None:
            step = "run scripts/fetch.py with a network, or with --clone"
        if tag is not None and place.is_dir():
            step += f", or git -C {place} fetch --depth 1 origin tag {tag}"
        finding = Finding(
            "every merge needs the pinned files, and they were not found",
            expected=f"{base_text(carried.lock)} in build/cache",
            found="not in the cache, and the fetch failed",
            next_step=step,
        )
        message = f"{carried.target.release} cannot be fetched: {error.message}"
        raise EnvironmentFailure(message, (finding, *error.findings)) from error
