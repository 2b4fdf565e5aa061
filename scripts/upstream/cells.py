"""The cells of the matrix: a column for each upstream version, a row for each patch
and each site.

A site's cell: the census decides. If upstream has not changed the site's behaviour, the
outcome is that of the site's hunk, provided that the census of the merged tree finds
the site in its expected state: a merge can succeed and still mean nothing.

A patch's cell, in this order:

1. If upstream adopted all of its sites: ``upstreamed`` if upstream has all of its hunks
   line by line, else ``superseded``. Its hunks without a site are listed as left over,
   because no census judges them.
2. If one of its sites does not land: the worst outcome of its sites.
3. Otherwise: the worst outcome of its sites and hunks.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from overlaykit.planning.plan import HunkPlan
from overlaykit.planning.plan import State as HunkState
from overlaykit.series.carried import Carried
from overlaykit.series.scopes import MODULE
from upstream.contracts import ADOPTED, contract_of
from upstream.facts import Facts, Quote
from upstream.outcomes import Cell, Column, Outcome, Version
from xscale.liveness import Life, LiveState
from xscale.sites import UNKNOWN_SITE, Role, SiteState

_OUTCOME_OF = {
    HunkState.CLEAN: Outcome.CLEAN,
    HunkState.APPLIED: Outcome.UPSTREAMED,
    HunkState.OFFSET: Outcome.OFFSET,
    HunkState.MERGED: Outcome.MERGED,
    HunkState.RENAMED: Outcome.RENAMED,
    HunkState.UPSTREAMED: Outcome.UPSTREAMED,
    HunkState.SUPERSEDED: Outcome.SUPERSEDED,
    HunkState.MISPLACED: Outcome.MISPLACED,
    HunkState.AMBIGUOUS: Outcome.AMBIGUOUS,
    HunkState.CONFLICT: Outcome.CONFLICT,
    HunkState.GONE: Outcome.GONE,
}

_LIVE = {True: "live", False: "dead", None: ""}


def columns(
    carried: Carried,
    found: Iterable[tuple[Version, Facts]],
) -> tuple[Column, ...]:
    """A column for each version, oldest first.

    A site is reverted if an earlier version had adopted it. Versions ``beside`` the
    others do not count as earlier.
    """
    adopted: set[str] = set()
    made = []
    for version, facts in found:
        made.append(_column(carried, version, facts, frozenset(adopted)))
        if not version.beside:
            adopted |= adopted_sites(facts)
    return tuple(made)


def adopted_sites(facts: Facts) -> set[str]:
    """The sites at which the version has adopted the change."""
    return {row.site for row in facts.rows if row.state in ADOPTED}


def site_key(facts: Facts, site: str) -> tuple[str, ...]:
    """The state of a site, to compare and to show. Line numbers do not count."""
    return tuple(
        sorted({
            ", ".join(filter(None, (r.state.value, _LIVE[r.live], r.path)))
            for r in facts.of(site)
        })
    )  # fmt: skip


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
        # A series without sites has no census to pass.
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
        dead=_dead(facts, site),
        not_run=_not_run(facts, site),
        moved_to=here.path if here and here.path not in home else None,
        quote=facts.quotes.get(site),
    )
    outcome, reasons = _judge_site(carried, version, facts, site, before)
    where = tuple(
        f"{r.path}:{r.line} in {r.scope}: {r.state.value}" for r in rows if r.path
    )
    details = tuple(dict.fromkeys(row.detail for row in rows if row.detail))
    return replace(cell, outcome=outcome, reasons=(*reasons, *where, *details))


def _of_site(facts: Facts, site: str) -> list[LiveState]:
    """The liveness of a site; of a consumer, that of all producers: it is reached if
    one of them is."""
    mine = [state for state in facts.lives if state.site == site]
    return mine or list(facts.lives)


def _dead(facts: Facts, site: str) -> bool:
    states = {state.state for state in _of_site(facts, site)}
    return states == {Life.DEAD}


def _not_run(facts: Facts, site: str) -> str:
    states = _of_site(facts, site)
    if all(state.state is not Life.LIVE for state in states):
        return next((s.reason for s in states if s.state is Life.NOT_RUN), "")
    return ""


def _judge_site(
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
        missing = "it" if states == {SiteState.GONE} else "a consumer of its scale"
        return Outcome.PREDATES, (f"older than the pin: {missing} does not exist yet",)
    if states == {SiteState.GONE}:
        if any(hunk.state.lands for hunk in hunks):
            return Outcome.UNSURE, (
                "its hunk merges, but the census finds no such call",
            )
        return Outcome.GONE, ("no such call remains",)
    if SiteState.UNKNOWN in states:
        return Outcome.UNSURE, ("the source does not show its stride order",)
    if states <= ADOPTED:
        if hunks and all(_outcome(hunk) is Outcome.UPSTREAMED for hunk in hunks):
            return Outcome.UPSTREAMED, ("upstream has the same lines",)
        return Outcome.SUPERSEDED, ("upstream has the change in other lines",)
    if site in before:
        return Outcome.REVERTED, ("an earlier version had the change",)
    others = adopted_sites(facts) - {site, UNKNOWN_SITE}
    if states & ADOPTED or (SiteState.COPIED not in states and others):
        return Outcome.LEFT_BEHIND, (f"upstream changed {_span(others)} but not this",)
    if SiteState.GONE in readers:
        return Outcome.UNSURE, ("the census finds no consumer for its scale",)
    return _judge_merge(carried, facts, site, hunks)


def _judge_merge(
    carried: Carried, facts: Facts, site: str, hunks: Sequence[HunkPlan]
) -> tuple[Outcome, tuple[str, ...]]:
    """The outcome of a site that upstream has not changed since the pin."""
    lines = tuple(_describe(hunk) for hunk in hunks)
    worst = max((_outcome(hunk) for hunk in hunks), key=lambda o: o.rank)
    if not worst.lands:
        home = {hunk.path for hunk in hunks}
        if all(row.path not in home for row in facts.of(site)):
            return Outcome.MOVED, lines
        return worst, lines
    expected = contract_of(carried).expected[site]
    after = facts.merged_of(site)
    if after and {row.state for row in after} == {expected}:
        return worst, lines
    result = ", ".join(sorted({row.state.value for row in after})) or "nothing"
    why = f"git merges it, but the census of the result finds: {result}"
    return Outcome.CONFLICT, (why, *lines)


def _outcome(hunk: HunkPlan) -> Outcome:
    return _OUTCOME_OF[hunk.state]


def _describe(hunk: HunkPlan) -> str:
    shift = f" {hunk.shift:+d}" if hunk.shift else ""
    detail = hunk.detail.partition("\n")[0].rstrip(":")
    text = f"hunk {hunk.number} in {hunk.scope}: {hunk.state.value}{shift}"
    return f"{text}; {detail}" if detail else text


def _patch(name: str, facts: Facts, sites: Mapping[str, Cell]) -> Cell:
    hunks = [hunk for hunk in facts.hunks if hunk.patch == name]
    named = dict.fromkeys(site for hunk in hunks for site in hunk.sites)
    mine = [sites[site] for site in named if site in sites]
    lines = tuple(_describe(hunk) for hunk in hunks)
    of_hunks = [_outcome(hunk) for hunk in hunks]
    over: tuple[str, ...] = ()
    if mine and all(cell.outcome.adopted for cell in mine):
        whole = all(outcome is Outcome.UPSTREAMED for outcome in of_hunks)
        outcome = Outcome.UPSTREAMED if whole else Outcome.SUPERSEDED
        over = tuple(
            _describe(hunk)
            for hunk in hunks
            if not hunk.sites and hunk.scope != MODULE and not _outcome(hunk).adopted
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
        (*of_sites, *lines),
        path=hunks[0].path,
        line=next((hunk.line for hunk in hunks if hunk.line is not None), None),
        dead=bool(mine) and (any if outcome.adopted else all)(c.dead for c in mine),
        not_run=next((cell.not_run for cell in mine if cell.not_run), ""),
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
    """Each danger, after the sites or the calls outside the catalogue that have it."""
    sites: dict[str, list[str]] = {}
    for problem in facts.dangers:
        finding = problem.finding
        if finding.site is not None:
            here = f"{finding.path}:{finding.line} in {finding.scope}"
            name = here if finding.site == UNKNOWN_SITE else finding.site
            sites.setdefault(problem.danger, []).append(name)
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
    """Calls outside the catalogue whose scale has no known reader."""
    return tuple(
        f"{row.path}:{row.line} in {row.scope}: {row.state.value}; {row.detail}"
        for row in facts.rows
        if row.site == UNKNOWN_SITE and row.consumer is None
    )


def _span(sites: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(sorted(sites)))
