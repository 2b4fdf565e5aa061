"""The matrix: a column an upstream version, a row a patch or a site, in one word each.

A site's cell: the census decides. Where upstream has not touched the site's behaviour
the cell reads what becomes of the site's hunk, but only if the census of the merged
result finds the site there as it should be: a merge can go through and mean nothing.

A patch's cell, in this order:

1. all of its sites are adopted by upstream: ``upstreamed`` if all of its hunks are,
   word for word, else ``superseded``; hunks of it that no site stands for are named as
   left over, since no census judges them;
2. a site of it is not one that lands: the worst of its sites (``Outcome``'s order);
3. else the worst of its sites and hunks.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from overlaykit.planning.plan import HunkPlan
from overlaykit.planning.plan import State as Landing
from overlaykit.series.carried import Carried
from overlaykit.series.scopes import MODULE
from upstream.contracts import contract_of
from upstream.facts import Facts, Quote
from upstream.outcomes import Cell, Column, Outcome, Version
from xscale.sites import UNKNOWN_SITE, Role, SiteState

ADOPTED = {
    SiteState.MARKED,
    SiteState.UNMARKED,
    SiteState.HONEST,
    SiteState.COPIES_UNMARKED,
    SiteState.ASSUMES,
    SiteState.NEEDS_HONEST,
}
"""States of a site in which upstream has the change, be it in other words."""

_OF_HUNK = {
    Landing.CLEAN: Outcome.CLEAN,
    Landing.APPLIED: Outcome.UPSTREAMED,
    Landing.OFFSET: Outcome.OFFSET,
    Landing.MERGED: Outcome.MERGED,
    Landing.RENAMED: Outcome.RENAMED,
    Landing.UPSTREAMED: Outcome.UPSTREAMED,
    Landing.SUPERSEDED: Outcome.SUPERSEDED,
    Landing.MISPLACED: Outcome.MISPLACED,
    Landing.AMBIGUOUS: Outcome.AMBIGUOUS,
    Landing.CONFLICT: Outcome.CONFLICT,
    Landing.GONE: Outcome.GONE,
}


def columns(
    carried: Carried,
    found: Iterable[tuple[Version, Facts]],
) -> tuple[Column, ...]:
    """A column for each version, oldest first: what was reverted, the order tells; what
    stands beside the others took nothing back that they have."""
    adopted: set[str] = set()
    made = []
    for version, facts in found:
        made.append(_column(carried, version, facts, frozenset(adopted)))
        if not version.beside:
            adopted |= adopted_sites(facts)
    return tuple(made)


def adopted_sites(facts: Facts) -> set[str]:
    """The sites that the version has in other words than row-major."""
    return {row.site for row in facts.rows if row.state in ADOPTED}


def site_key(facts: Facts, site: str) -> tuple[str, ...]:
    """What of a site counts as its state: not in which line it stands."""
    return tuple(
        sorted({f"{r.state.value}, {r.live}, {r.path}" for r in facts.of(site)})
    )


def _column(
    carried: Carried, version: Version, facts: Facts, before: frozenset[str]
) -> Column:
    expected = contract_of(carried).expected
    sites = {site: _site(carried, version, facts, site, before) for site in expected}
    patches = tuple(
        _patch(patch.name, facts, sites) for patch in carried.series.patches
    )
    return Column(
        version,
        facts.standing,
        patches,
        tuple(sites.values()),
        # Without sites there is no census to pass.
        facts.lands and bool(facts.merged or not sites) and not facts.wrong,
        _dangers(facts),
        _unforeseen(facts),
        _unpaired(facts),
        facts.known,
    )


def _site(
    carried: Carried,
    version: Version,
    facts: Facts,
    site: str,
    before: frozenset[str],
) -> Cell:
    rows = facts.of(site)
    hunks = [hunk for hunk in facts.hunks if site in hunk.sites]
    here = next((row for row in rows if row.path is not None), None)
    home = {hunk.path for hunk in hunks}
    cell = Cell(
        site,
        Outcome.UNSURE,
        path=here.path if here else None,
        line=here.line if here else None,
        dead=any(row.live is False for row in rows),
        moved_to=here.path if here and here.path not in home else None,
        quote=facts.quotes.get(site),
    )
    outcome, reasons = _meaning(carried, version, facts, site, before)
    where = tuple(
        f"{r.path}:{r.line} in {r.scope}: {r.state.value}" for r in rows if r.path
    )
    details = tuple(dict.fromkeys(row.detail for row in rows if row.detail))
    return replace(cell, outcome=outcome, reasons=(*reasons, *where, *details))


def _meaning(
    carried: Carried,
    version: Version,
    facts: Facts,
    site: str,
    before: frozenset[str],
) -> tuple[Outcome, tuple[str, ...]]:
    rows = facts.of(site)
    hunks = [hunk for hunk in facts.hunks if site in hunk.sites]
    states = {row.state for row in rows}
    readers = {row.state for row in facts.rows if row.role is Role.CONSUMER}
    if version.before_pin and SiteState.GONE in states | readers:
        what = "it is" if states == {SiteState.GONE} else "a consumer of its scale is"
        return Outcome.PREDATES, (f"older than the pin: {what} not there yet",)
    if states == {SiteState.GONE}:
        if any(hunk.state.lands for hunk in hunks):
            return Outcome.UNSURE, (
                "its hunk merges, and the census sees no such call",
            )
        return Outcome.GONE, ("no call like it is left",)
    if SiteState.UNKNOWN in states:
        return Outcome.UNSURE, ("the source does not show in which order it writes",)
    if states <= ADOPTED:
        if hunks and all(_of(hunk) is Outcome.UPSTREAMED for hunk in hunks):
            return Outcome.UPSTREAMED, ("upstream has these very lines",)
        return Outcome.SUPERSEDED, ("upstream has it, in other words than the series",)
    if site in before:
        return Outcome.REVERTED, ("an earlier version had it",)
    others = adopted_sites(facts) - {site, UNKNOWN_SITE}
    if states & ADOPTED or (SiteState.COPIED not in states and others):
        return Outcome.LEFT_BEHIND, (f"upstream changed {_span(others)} and not this",)
    if SiteState.GONE in readers:
        return Outcome.UNSURE, ("the census sees no consumer for its scale",)
    return _merge(carried, facts, site, hunks, states)


def _merge(
    carried: Carried,
    facts: Facts,
    site: str,
    hunks: Sequence[HunkPlan],
    states: set[SiteState],
) -> tuple[Outcome, tuple[str, ...]]:
    """What becomes of the hunks of a site that upstream has left as it was pinned."""
    told = tuple(_told(hunk) for hunk in hunks)
    worst = max((_of(hunk) for hunk in hunks), key=lambda o: o.rank)
    if not worst.lands:
        home = {hunk.path for hunk in hunks}
        if all(row.path not in home for row in facts.of(site)):
            return Outcome.MOVED, told
        return worst, told
    expected = contract_of(carried).expected[site]
    after = facts.merged_of(site)
    if after and {row.state for row in after} == {expected}:
        return worst, told
    result = ", ".join(sorted({row.state.value for row in after})) or "nothing"
    why = f"git merges it, but the census of the result finds: {result}"
    return Outcome.CONFLICT, (why, *told)


def _of(hunk: HunkPlan) -> Outcome:
    return _OF_HUNK[hunk.state]


def _told(hunk: HunkPlan) -> str:
    shift = f" {hunk.shift:+d}" if hunk.shift else ""
    detail = hunk.detail.partition("\n")[0].rstrip(":")
    told = f"hunk {hunk.number} in {hunk.scope}: {hunk.state.value}{shift}"
    return f"{told}; {detail}" if detail else told


def _patch(name: str, facts: Facts, sites: Mapping[str, Cell]) -> Cell:
    hunks = [hunk for hunk in facts.hunks if hunk.patch == name]
    named = dict.fromkeys(site for hunk in hunks for site in hunk.sites)
    mine = [sites[site] for site in named if site in sites]
    told = tuple(_told(hunk) for hunk in hunks)
    of_hunks = [_of(hunk) for hunk in hunks]
    over: tuple[str, ...] = ()
    if mine and all(cell.outcome.adopted for cell in mine):
        whole = all(outcome is Outcome.UPSTREAMED for outcome in of_hunks)
        outcome = Outcome.UPSTREAMED if whole else Outcome.SUPERSEDED
        over = tuple(
            _told(hunk)
            for hunk in hunks
            if not hunk.sites and hunk.scope != MODULE and not _of(hunk).adopted
        )
    elif any(not cell.outcome.lands for cell in mine):
        outcome = max((cell.outcome for cell in mine), key=lambda o: o.rank)
    else:
        of_hunks += [cell.outcome for cell in mine]
        outcome = max(of_hunks, key=lambda o: o.rank)
    of_sites = tuple(f"{cell.row}: {cell.label}" for cell in mine)
    moved = dict.fromkeys(cell.moved_to for cell in mine if cell.moved_to)
    return Cell(
        name.removesuffix(".patch"),
        outcome,
        (*of_sites, *told),
        path=hunks[0].path,
        line=next((hunk.line for hunk in hunks if hunk.line is not None), None),
        dead=bool(mine) and all(cell.dead for cell in mine),
        moved_to=next(iter(moved), None),
        left_over=over,
        sites=tuple(cell.row for cell in mine),
        quote=_conflict(hunks),
    )


def _conflict(hunks: Iterable[HunkPlan]) -> Quote | None:
    for hunk in hunks:
        _, _, text = hunk.detail.partition("\n")
        if text and hunk.line is not None:
            return Quote(hunk.path, hunk.line, tuple(text.splitlines()))
    return None


def _dangers(facts: Facts) -> tuple[str, ...]:
    """By what is wrong, the sites, or the calls outside the catalogue, that it is
    wrong of."""
    sites: dict[str, list[str]] = {}
    for finding in facts.dangers:
        if finding.site is not None:
            danger = finding.what[finding.what.index("dangerous") :]
            here = f"{finding.path}:{finding.line} in {finding.scope}"
            name = here if finding.site == UNKNOWN_SITE else finding.site
            sites.setdefault(danger, []).append(name)
    return tuple(f"{_span(names)}: {what}" for what, names in sites.items())


def _unforeseen(facts: Facts) -> tuple[str, ...]:
    """Calls outside the catalogue, and what reads their scales."""
    return tuple(
        f"{row.path}:{row.line} in {row.scope}: {row.state.value}, read by {reader}"
        for row in facts.rows
        for reader in [row.consumer]
        if row.site == UNKNOWN_SITE and reader is not None
    )


def _unpaired(facts: Facts) -> tuple[str, ...]:
    """Calls outside the catalogue of which it is not seen what reads their scales."""
    return tuple(
        f"{row.path}:{row.line} in {row.scope}: {row.state.value}; {row.detail}"
        for row in facts.rows
        if row.site == UNKNOWN_SITE and row.consumer is None
    )


def _span(sites: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(sorted(sites)))
