"""Summarize results: one row per site and route, and one finding per kind of fault."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from overlaykit.core.errors import Finding
from xscale.numeric.results import CaseResult, Reading


@dataclass(frozen=True)
class SiteSummary:
    """All readings of one site on one route, with counts of right readings.

    ``values`` and ``gemm`` count those compared with a pristine tree. ``copies`` is
    the range of copies from storage written to storage read, over cases in which the
    producer was asked for a transposed scale (``asked``) and in which it was not.
    """

    site: str
    route: str
    readings: int
    bytes: int
    compared: int
    values: int
    gemm: int
    copies_asked: str
    copies_unasked: str
    producers: tuple[str, ...]
    stand_ins: tuple[str, ...]


@dataclass(frozen=True)
class ChainSummary:
    """Operations that copy a scale between a chain's producer and its GEMMs, as ranges
    over cases in which transposed scales were ``asked`` for and in which not.
    ``routes`` has one entry per reading. At M = 1 and G = 1 nothing is copied."""

    chain: str
    routes: tuple[str, ...]
    cases: int
    relayouts_asked: str
    relayouts_unasked: str


def chains_of(outcomes: Iterable[CaseResult]) -> tuple[ChainSummary, ...]:
    """One row per chain and routes of its consumers, without M = 1 and without tests of
    check mode."""
    groups: dict[tuple[str, tuple[str, ...]], list[CaseResult]] = {}
    for outcome in outcomes:
        case = outcome.case
        if case.m > 1 and not case.tests_check_mode and outcome.readings:
            routes = tuple(r.route.value for r in outcome.readings)
            groups.setdefault((case.chain.value, routes), []).append(outcome)
    return tuple(
        ChainSummary(
            chain,
            routes,
            len(same),
            _range(o.relayouts for o in same if o.asked),
            _range(o.relayouts for o in same if not o.asked),
        )
        for (chain, routes), same in groups.items()
    )


def summarize(outcomes: Iterable[CaseResult]) -> tuple[SiteSummary, ...]:
    """One row per site and route, in the order of the sites.

    M = 0 is left out, because nothing can be wrong there, and so are tests of check
    mode.
    """
    groups: dict[tuple[str, str], list[tuple[CaseResult, Reading]]] = {}
    for outcome in outcomes:
        if outcome.case.m == 0 or outcome.case.tests_check_mode:
            continue
        for reading in outcome.readings:
            key = (reading.site, reading.route.value)
            groups.setdefault(key, []).append((outcome, reading))
    rows = []
    for (site, route), pairs in sorted(groups.items()):
        readings = [reading for _, reading in pairs]
        compared = [r for r in readings if r.gemm is not None]
        rows.append(
            SiteSummary(
                site,
                route,
                len(readings),
                sum(r.bytes for r in readings),
                len(compared),
                sum(bool(r.values) for r in compared),
                sum(bool(r.gemm) for r in compared),
                _range(r.copies for o, r in pairs if o.asked),
                _range(r.copies for o, r in pairs if not o.asked),
                tuple(sorted({r.producer for r in readings})),
                tuple(sorted({r.stand_in for r in readings})),
            )
        )
    return tuple(rows)


def findings_of(outcomes: Iterable[CaseResult]) -> tuple[Finding, ...]:
    """One finding for all cases with the same fault at the same site. Wrong scales come
    first, then copies, then other findings."""
    groups: dict[tuple[str, str], list[Finding]] = {}
    for outcome in outcomes:
        for finding in outcome.findings:
            what = finding.what.removesuffix(f" ({outcome.case})")
            groups.setdefault((finding.site or "", what), []).append(finding)
    return tuple(
        replace(same[0], what=f"{same[0].what}; {len(same)} cases alike")
        if len(same) > 1
        else same[0]
        for _, same in sorted(
            groups.items(), key=lambda group: (_rank(group[0][1]), group[0])
        )
    )


_GRAVEST = ("reads a wrong scale", "other values", "cop")


def _rank(what: str) -> int:
    ranks = (rank for rank, words in enumerate(_GRAVEST) if words in what)
    return next(ranks, len(_GRAVEST))


def _range(counts: Iterable[int]) -> str:
    found = sorted(set(counts))
    return "-".join(map(str, (found[0], found[-1])[: len(found)])) if found else ""
