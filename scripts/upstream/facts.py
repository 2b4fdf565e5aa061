"""The planner's and the census's answers about one upstream tree and its merge.

Facts depend on one tree alone, so they are cached by its content. A column also depends
on the columns before it, so it is computed from facts each time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from overlaykit.core.errors import Finding
from overlaykit.planning.landing import DriftedPlan, Landings, plan_drifted
from overlaykit.planning.plan import HunkPlan, Standing, locate
from overlaykit.series.carried import Carried
from overlaykit.series.patches import split_lines
from overlaykit.trees.tree import EditedTree, Tree
from upstream.contracts import Contract, contract_of
from xscale.census import Problem, SiteRow
from xscale.liveness import LiveState, not_run, probe_surely, with_lives

QUOTED = 24
_BEFORE = 1


@dataclass(frozen=True)
class Quote:
    """Lines of upstream's code, starting at ``line``."""

    path: str
    line: int
    lines: tuple[str, ...]

    def capped(self, most: int) -> Quote | None:
        """The first ``most`` lines; None for 0."""
        return Quote(self.path, self.line, self.lines[:most]) if most else None


@dataclass(frozen=True)
class KnownBase:
    """The carried base that a tree is identical to, and whether it is applied."""

    target: str
    standing: Standing


@dataclass(frozen=True)
class Facts:
    """``rows`` is the census of the tree itself. ``merged`` is the census of the tree
    with every hunk that lands (empty if no hunk lands, or if all are there already),
    and ``wrong`` lists what the merged tree still lacks. ``dangers`` are the dangerous
    mixes in the tree itself. ``quotes`` maps sites to code. ``known`` is set if
    the tree is identical to a base that the overlay carries. ``lives`` are the states
    of the sites when the tree's own code is run; empty for a package without such code.
    ``sure`` says whether the same tree would give the same facts again.
    """

    standing: Standing
    hunks: tuple[HunkPlan, ...]
    rows: tuple[SiteRow, ...]
    merged: tuple[SiteRow, ...]
    wrong: tuple[Finding, ...]
    dangers: tuple[Problem, ...]
    quotes: dict[str, Quote]
    known: KnownBase | None = None
    lives: tuple[LiveState, ...] = ()
    sure: bool = True

    @property
    def lands(self) -> bool:
        """Whether every hunk merges. This says nothing about meaning."""
        return all(hunk.state.lands for hunk in self.hunks)

    def of(self, site: str) -> tuple[SiteRow, ...]:
        return tuple(row for row in self.rows if row.site == site)

    def merged_of(self, site: str) -> tuple[SiteRow, ...]:
        return tuple(row for row in self.merged if row.site == site)


def facts_of(
    carried: Carried,
    tree: Tree,
    base: Tree,
    others: Iterable[Carried] = (),
    aiter: Tree | None = None,
    landings: Landings | None = None,
    run: bool = True,
) -> Facts:
    """Ask the planner and the census about ``tree``, and run its code on ``aiter``'s
    kernels. ``base`` is the pinned release; ``others`` are the carried bases of the
    same package. ``landings`` are those on the trees before. Without ``run``,
    nothing is run."""
    contract = contract_of(carried)
    standing = locate(carried, tree).standing(carried)
    landed = plan_drifted(carried, tree, base, landings)
    states, sure = _lives(contract, tree, aiter) if run else ({}, True)
    census = with_lives(contract.census(carried.target, tree), states)
    merged, wrong = _merged(carried, contract, tree, landed, census.rows)
    return Facts(
        standing,
        landed.hunks,
        census.rows,
        merged,
        wrong,
        contract.dangers(census),
        _quotes(tree, census.rows),
        _known_base(tree, (carried, *others)),
        tuple(states.values()),
        sure,
    )


def _lives(
    contract: Contract, tree: Tree, aiter: Tree | None
) -> tuple[Mapping[str, LiveState], bool]:
    if not contract.runs:
        return {}, True
    if aiter is None:
        return not_run("AITER's kernels are not here: run scripts/fetch.py"), True
    return probe_surely(tree, aiter)


def _known_base(tree: Tree, bases: Iterable[Carried]) -> KnownBase | None:
    for base in bases:
        standing = locate(base, tree).standing(base)
        if standing in (Standing.PRISTINE, Standing.APPLIED):
            return KnownBase(base.name, standing)
    return None


def _merged(
    carried: Carried,
    contract: Contract,
    tree: Tree,
    landed: DriftedPlan,
    rows: Iterable[SiteRow],
) -> tuple[tuple[SiteRow, ...], tuple[Finding, ...]]:
    """The census of the merged tree, if a hunk lands at a site that needs it."""
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
