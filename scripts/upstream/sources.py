"""Where the tree of an upstream version is, and its facts.

Releases are read from their wheels and commits from a clone's objects; nothing is
unpacked or checked out. Facts that are not cached are computed by two processes, each
with one tree at a time, so that memory does not grow with the number of versions.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from overlaykit.core.errors import EnvironmentFailure, Finding
from overlaykit.core.versions import Order, order
from overlaykit.series.carried import Carried, load_overlay
from overlaykit.series.ledger import ledger
from overlaykit.series.lock import base_text
from overlaykit.sources import releases
from overlaykit.sources.bases import cached, fetch_base, pinned_base
from overlaykit.sources.packages import Progress
from overlaykit.sources.releases import Release
from overlaykit.trees.tree import GitTree, Tree, WheelTree
from upstream import workers
from upstream.cache import FactsCache
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


def all_facts(
    root: Path, carried: Carried, sources: Sequence[Source], progress: Progress
) -> list[Facts]:
    """The facts of each source, in order; cached facts are reused."""
    entries = FactsCache(root)
    found = {
        source.version.identity: facts
        for source in sources
        if (facts := entries.load(carried.name, source.version.identity)) is not None
    }
    todo = {s.version.identity: s for s in sources if s.version.identity not in found}
    for identity, facts in _compute_all(root, carried, todo, progress):
        entries.save(carried.name, identity, facts)
        found[identity] = facts
    return [found[source.version.identity] for source in sources]


def _compute_all(
    root: Path, carried: Carried, todo: Mapping[str, Source], progress: Progress
) -> Iterator[tuple[str, Facts]]:
    if len(todo) < workers.PROCESSES:
        for number, (identity, source) in enumerate(todo.items(), 1):
            yield identity, compute_facts(root, carried.name, source)
            progress("versions", number, len(todo))
        return
    # Fetch the base here, so that the two processes do not both fetch it (or fail).
    with _base(root, carried, next(iter(todo.values())).place):
        pass
    with workers.pool() as pool:
        jobs: dict[str, Future[Facts]] = {
            identity: pool.submit(
                workers.job, compute_facts, root, carried.name, source
            )
            for identity, source in todo.items()
        }
        try:
            for number, (identity, job) in enumerate(jobs.items(), 1):
                yield identity, job.result()
                progress("versions", number, len(jobs))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def compute_facts(root: Path, target: str, source: Source) -> Facts:
    """The facts of one source. Runs in another process."""
    overlay = _overlay(root)
    carried = overlay[target]
    others = [
        other
        for other in overlay.values()
        if other.target.package == carried.target.package and other is not carried
    ]
    with _opened(carried, source) as tree, _base(root, carried, source.place) as base:
        return facts_of(carried, tree, base, others, _kernels(root, overlay))


def _kernels(root: Path, overlay: Mapping[str, Carried]) -> Tree | None:
    """The pinned AITER, if it is in the cache."""
    kernels = (one for one in overlay.values() if one.target.package == "aiter")
    carried = next(kernels, None)
    return cached(root, carried) if carried is not None else None


@cache
def _overlay(root: Path) -> dict[str, Carried]:
    return load_overlay(root)


@contextmanager
def _opened(carried: Carried, source: Source) -> Iterator[Tree]:
    if source.treeish is None:
        yield WheelTree(source.place, carried.target.site_layout())
        return
    with GitTree(source.place, source.treeish) as tree:
        yield tree


@contextmanager
def _base(root: Path, carried: Carried, place: Path) -> Iterator[Tree]:
    """The pinned base from the cache, else the pinned files in the clone.

    The cache comes first, because a partial clone may lack the files.
    """
    if (base := cached(root, carried)) is not None:
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
