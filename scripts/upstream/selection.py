"""The upstream versions of a matrix: releases, commits, the commits of a range."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from overlaykit.core.errors import EnvironmentFailure
from overlaykit.core.versions import order
from overlaykit.series.carried import Carried
from overlaykit.series.ledger import LEDGER
from overlaykit.sources.releases import listed
from upstream.clone import Clone, watched
from upstream.facts import Facts
from upstream.sources import Source, pinned_order, recorded, release_source

Analyze = Callable[[Sequence[Source]], Sequence[Facts]]


@dataclass(frozen=True)
class Selection:
    """``sources`` are analyzed in this order; the matrix shows ``shown`` of them. The
    others decide whether a shown version reverted something."""

    sources: tuple[Source, ...]
    shown: frozenset[Source]
    note: str = ""

    @classmethod
    def of(cls, sources: Sequence[Source], note: str = "") -> Selection:
        """A selection that shows all of its sources."""
        return cls(tuple(sources), frozenset(sources), note)

    def __add__(self, other: Selection) -> Selection:
        return Selection(
            self.sources + other.sources,
            self.shown | other.shown,
            self.note or other.note,
        )


def named_releases(root: Path, carried: Carried, wanted: Sequence[str]) -> Selection:
    """The wanted releases, and the recorded ones between the pin and the newest."""
    pin, newest = pinned_order(carried), max(map(order, wanted))
    between = [r.version for r in recorded(root, carried)
               if pin is None or pin < order(r.version) < newest]  # fmt: skip
    versions = sorted({*wanted, *between}, key=order)
    sources = [release_source(root, carried, version) for version in versions]
    shown = (source for source in sources if source.version.name in wanted)
    return Selection(tuple(sources), frozenset(shown))


def recorded_releases(root: Path, carried: Carried) -> Selection:
    """Every recorded release. Asks no package index."""
    sources = [release_source(root, carried, v) for v in _versions(root, carried)]
    return Selection.of(sources, f"only the releases in {LEDGER} (--recorded)")


def all_releases(root: Path, carried: Carried) -> Selection:
    """Every recorded release, and newer ones if the package index answers."""
    versions = _versions(root, carried)
    newest = order(versions[-1])
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(listed, carried.releases.package_dist)
        sources = [release_source(root, carried, version) for version in versions]
        try:
            newer = [version for version in answer.result() if order(version) > newest]
        except EnvironmentFailure as error:
            return Selection.of(
                sources, f"only the releases in {LEDGER}: {error.message}"
            )
    return Selection.of(sources + [release_source(root, carried, v) for v in newer])


def _versions(root: Path, carried: Carried) -> list[str]:
    versions = [release.version for release in recorded(root, carried)]
    return versions or [carried.releases.package_dist.version]


def commits(clone: Clone, refs: Sequence[str]) -> Selection:
    """The commits of some refs."""
    return Selection.of([clone.source(ref) for ref in dict.fromkeys(refs)])


def commit_range(clone: Clone, first: str, last: str, analyze: Analyze) -> Selection:
    """``first``, and the commits up to ``last`` that touch the series or its sites.

    If ``first`` is not on the first-parent line of ``last``, the commit at which that
    line starts comes after it.
    """
    line = clone.line(first, last)
    begin = [clone.source(line.first, first)]
    if line.start:
        remark = f"not on the line of {last}, which starts at {line.since[:10]}"
        begin = [
            clone.source(line.first, first, remark, beside=True),
            clone.source(line.since, line.since[:10], line.start),
        ]
    ends = [begin[-1], clone.source(last)]
    touching = clone.touching(line, watched(clone.carried, analyze(ends)))
    rest = clone.sources(touching, between=True)
    return Selection.of([*begin, *rest])
