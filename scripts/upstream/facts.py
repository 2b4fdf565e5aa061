"""What the planner and the census say of one upstream tree, and of the merge into it.

Facts are about one tree alone, so they can be kept by its content; what a column reads
also depends on the columns before it, and is made of facts each time.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from overlaykit.core.errors import Finding
from overlaykit.planning.landing import DriftedPlan, plan_drifted
from overlaykit.planning.plan import HunkPlan, Standing, locate
from overlaykit.series.carried import Carried
from overlaykit.series.patches import split_lines
from overlaykit.trees.tree import EditedTree, Tree
from upstream.contracts import Contract, contract_of
from xscale.census import SiteRow

QUOTED = 24
_BEFORE = 1


@dataclass(frozen=True)
class Quote:
    """Lines of upstream's, from ``line`` on."""

    path: str
    line: int
    lines: tuple[str, ...]

    def capped(self, most: int) -> Quote | None:
        """At most so many of the lines; None where that leaves none."""
        return Quote(self.path, self.line, self.lines[:most]) if most else None


@dataclass(frozen=True)
class Known:
    """A tree that the overlay is made for: which target's, as released or applied."""

    target: str
    standing: Standing


@dataclass(frozen=True)
class Facts:
    """``rows`` is the census of the tree as it is, ``merged`` that of what the hunks
    that land make of it (empty where none lands, or all are there already); ``wrong``
    is what then keeps the tree from having adopted the optimization. ``dangers`` are
    the mixtures that the tree holds by itself. ``quotes`` go by site. ``known`` is the
    base that the tree is, if the overlay carries one with these very files.
    """

    standing: Standing
    hunks: tuple[HunkPlan, ...]
    rows: tuple[SiteRow, ...]
    merged: tuple[SiteRow, ...]
    wrong: tuple[Finding, ...]
    dangers: tuple[Finding, ...]
    quotes: dict[str, Quote]
    known: Known | None = None

    @property
    def lands(self) -> bool:
        """Whether git would merge all of the series, whatever it means there."""
        return all(hunk.state.lands for hunk in self.hunks)

    def of(self, site: str) -> tuple[SiteRow, ...]:
        return tuple(row for row in self.rows if row.site == site)

    def merged_of(self, site: str) -> tuple[SiteRow, ...]:
        return tuple(row for row in self.merged if row.site == site)


def facts_of(
    carried: Carried, tree: Tree, base: Tree, others: Iterable[Carried] = ()
) -> Facts:
    """Ask planner and census of ``tree``; ``base`` is the pinned release, ``others``
    are what the overlay carries on other releases of the same package."""
    contract = contract_of(carried)
    standing = locate(carried, tree).standing(carried)
    landed = plan_drifted(carried, tree, base)
    census = contract.census(carried.target, tree)
    merged, wrong = _merged(carried, contract, tree, landed, census.rows)
    return Facts(
        standing,
        landed.hunks,
        census.rows,
        merged,
        wrong,
        contract.dangers(census),
        _quotes(tree, census.rows),
        _known(tree, (carried, *others)),
    )


def _known(tree: Tree, bases: Iterable[Carried]) -> Known | None:
    for base in bases:
        standing = locate(base, tree).standing(base)
        if standing in (Standing.PRISTINE, Standing.APPLIED):
            return Known(base.name, standing)
    return None


def _merged(
    carried: Carried,
    contract: Contract,
    tree: Tree,
    landed: DriftedPlan,
    rows: Iterable[SiteRow],
) -> tuple[tuple[SiteRow, ...], tuple[Finding, ...]]:
    """The census of the merged result, where a hunk lands at a site that lacks it."""
    lacking = {
        row.site for row in rows if row.state is not contract.expected.get(row.site)
    }
    if not any(h.state.lands and lacking & set(h.sites) for h in landed.hunks):
        return (), ()
    changes: dict[str, bytes | None] = dict(landed.files)
    changes |= {new.path: new.data for new in carried.new_files}
    census = contract.census(carried.target, EditedTree(tree, changes))
    return census.rows, contract.check(census)


def _quotes(tree: Tree, rows: Iterable[SiteRow]) -> dict[str, Quote]:
    quotes: dict[str, Quote] = {}
    for row in rows:
        if row.path is None or row.line is None or row.site in quotes:
            continue
        lines = split_lines(tree.read(row.path) or b"")
        first = max(row.line - _BEFORE, 1)
        cut = lines[first - 1 : first - 1 + QUOTED]
        text = tuple(line.decode(errors="replace").rstrip() for line in cut)
        quotes[row.site] = Quote(row.path, first, text)
    return quotes
