"""Findings where a tree does not adopt the optimization completely.

A producer is judged together with the consumer that reads its scale, because only the
pair is right or wrong. A call that could not be paired is a separate finding.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import dropwhile

from overlaykit.core.errors import Finding
from xscale.census.rows import Census, SiteRow
from xscale.sites import CATALOGUE, Role, Site, SiteState

_SITES = {site.id: site for site in CATALOGUE}

_AGAIN = "and the consumer transposes it again: its GEMM reads scrambled scales"
_PAIR_FAULTS: Mapping[tuple[SiteState, SiteState], str] = {
    (
        SiteState.ROW_MAJOR,
        SiteState.COPIES_UNMARKED,
    ): "left behind: right, but copied each time",
    (SiteState.ROW_MAJOR, SiteState.ASSUMES): (
        "dangerous mix: the consumer takes it for transposed, its GEMM reads scrambled "
        "scales"
    ),
    (
        SiteState.UNMARKED,
        SiteState.ASSUMES,
    ): "right only as long as every producer is so",
    (
        SiteState.UNMARKED,
        SiteState.COPIES_UNMARKED,
    ): f"dangerous mix: it is not marked, {_AGAIN}",
    (SiteState.ROW_MAJOR, SiteState.NEEDS_HONEST): (
        "dangerous mix: the Triton GEMM takes it for transposed and reads scrambled "
        "scales"
    ),
    (SiteState.UNMARKED, SiteState.NEEDS_HONEST): (
        f"dangerous mix: its strides do not tell that it is transposed, {_AGAIN}"
    ),
    (
        SiteState.UNMARKED,
        SiteState.COPIES_ALL,
    ): f"dangerous mix: it is transposed, {_AGAIN}",
}
_RIGHT = {
    *(
        (SiteState.ROW_MAJOR, by)
        for by in (SiteState.COPIES_ALL, SiteState.COPIES_UNMARKED)
    ),
    *(
        (state, by)
        for state in (SiteState.COPIED, SiteState.HONEST)
        for by in (
            SiteState.COPIES_ALL,
            SiteState.COPIES_UNMARKED,
            SiteState.ASSUMES,
            SiteState.NEEDS_HONEST,
        )
    ),
    (SiteState.MARKED, SiteState.COPIES_UNMARKED),
    (SiteState.MARKED, SiteState.ASSUMES),
    (SiteState.UNMARKED, SiteState.ASSUMES),
}
"""Pairs of producer and consumer with which both GEMMs read right values."""
_NEXT_STEP: Mapping[SiteState, str] = {
    SiteState.ROW_MAJOR: "apply the series' patch for this call: transpose and mark",
    SiteState.COPIED: "apply the series' patch for this call instead of the copy",
    SiteState.UNMARKED: "set the marker on the tensor object that is passed on",
    SiteState.COPIES_ALL: "apply the series' patch for the consumer",
    SiteState.ASSUMES: "apply the series' patch for the consumer",
    SiteState.GONE: "find its replacement upstream, then rebase or drop the site",
    SiteState.MARKED: "guard it by an attribute that native block-FP8 layers have",
    SiteState.HONEST: "apply the series' patch for this call, or retire the patch",
    SiteState.NEEDS_HONEST: (
        "give it honest strides from every producer; retire the patch"
    ),
    SiteState.UNKNOWN: (
        "read the source; rewrite it, or extend xscale.census.judge to its form"
    ),
}


@dataclass(frozen=True)
class Problem:
    """A finding of the census. ``danger`` is set where transposed and row-major scales
    meet and a GEMM reads wrong values: it says how."""

    finding: Finding
    danger: str = ""


@dataclass(frozen=True)
class _Effect:
    """What a producer and a consumer do together."""

    text: str
    dangerous: bool


def check_adopted(census: Census) -> tuple[Finding, ...]:
    """The findings of :func:`problems`."""
    return tuple(problem.finding for problem in problems(census))


def problems(census: Census) -> tuple[Problem, ...]:
    """What keeps the tree from having adopted the optimization, wholly and alone.

    Empty if and only if every site of the catalogue is in its expected state, no site
    is known to be dead, and no call is outside the catalogue. Where upstream has its
    own layout, calls outside the catalogue are upstream's, and only dangers count.
    """
    consumers = {r.state for r in census.rows if r.role is Role.CONSUMER}
    own = _is_upstreams(census)
    found = [
        _problem(row, census, consumers, own)
        for row in census.rows
        if row.site not in _SITES
        or row.state is not _expected(_SITES[row.site], own)
        or row.live is False
    ]
    return tuple(
        problem
        for problem in found
        if problem.danger or problem.finding.site in _SITES or not own
    )


def _is_upstreams(census: Census) -> bool:
    """Whether the tree has upstream's own layout: honest scales without marks, and a
    consumer that goes by the strides and copies nothing that is honest."""
    mine = [row for row in census.rows if row.site in _SITES]
    consumers = {row.state for row in mine if row.role is Role.CONSUMER}
    honest = any(row.state is SiteState.HONEST for row in mine)
    return honest and consumers == {SiteState.COPIES_ALL}


def _expected(site: Site, own: bool) -> SiteState:
    if not own:
        return site.expected
    consumer = site.role is Role.CONSUMER
    return SiteState.COPIES_ALL if consumer else SiteState.HONEST


def _effects(pairs: Sequence[tuple[SiteState, SiteState]]) -> list[_Effect]:
    """What is known of each pair of a producer and a consumer."""
    return [
        _Effect(_PAIR_FAULTS[pair], pair not in _RIGHT)
        for pair in pairs
        if pair in _PAIR_FAULTS
    ]


def _danger(effects: Sequence[_Effect]) -> str:
    """From the first dangerous effect on; empty without one."""
    rest = dropwhile(lambda effect: not effect.dangerous, effects)
    return "; ".join(effect.text for effect in rest)


def _problem(
    row: SiteRow, census: Census, consumers: set[SiteState], own: bool
) -> Problem:
    if row.site not in _SITES:
        return _outside(row, census)
    site = _SITES[row.site]
    if row.role is Role.CONSUMER:
        effects = [_Effect(text, True) for text in _mixture(row.state, census)]
    else:
        effects = _effects([(row.state, s) for s in SiteState if s in consumers])
    dead = ", dead" if row.live is False else ""
    what = f"{site.id} ({site.meaning}): {row.state.value}{dead}"
    finding = Finding(
        "; ".join([what, *(effect.text for effect in effects)]),
        path=row.path,
        line=row.line,
        scope=row.scope,
        site=row.site,
        expected=_expected(site, own).value + (", live" if dead else ""),
        found=f"{row.state.value}: {row.detail}",
        next_step=_NEXT_STEP[row.state],
    )
    return Problem(finding, _danger(effects))


def _outside(row: SiteRow, census: Census) -> Problem:
    """The problem with a call outside the catalogue: what reads its scale."""
    effect, expected = _together(row, census)
    what = f"; {effect.text}" if effect.text else ""
    finding = Finding(
        f"unforeseen {row.role.value}{what}",
        path=row.path,
        line=row.line,
        scope=row.scope,
        site=row.site,
        expected=expected,
        found=f"{row.state.value}: {row.detail}",
        next_step="find where its scale goes; adopt it and add it to the catalogue",
    )
    return Problem(finding, _danger([effect]))


def _together(row: SiteRow, census: Census) -> tuple[_Effect, str]:
    """What is wrong with it, and what there should be instead."""
    expected = "no call outside the catalogue in xscale.sites"
    if row.role is Role.CONSUMER:
        return _Effect("", False), expected
    if row.state is SiteState.MISREAD:
        text = "dangerous mix: the GEMM beside it reads scrambled scales"
        return _Effect(text, True), expected
    if row.consumer is None:
        unpaired = _Effect("could not be paired with a consumer", False)
        return unpaired, "the consumer that reads it"
    states = {
        other.state
        for other in census.rows
        if other.role is Role.CONSUMER and f"{other.path}:{other.line}" == row.consumer
    }
    pairs = {(row.state, state) for state in states}
    for effect in _effects(list(pairs)):
        if effect.dangerous:
            return _Effect(f"{effect.text} ({row.consumer})", True), expected
    if pairs and pairs <= _RIGHT:
        return _Effect(f"read right by {row.consumer}", False), expected
    expected = "a scale that its consumer is seen to read right"
    text = f"not seen whether {row.consumer} reads it right"
    return _Effect(text, False), expected


def _mixture(consumer: SiteState, census: Census) -> list[str]:
    """What a consumer gets wrong if it treats all scales alike."""
    transposed = _sites_in(census, SiteState.MARKED, SiteState.UNMARKED)
    row_major = _sites_in(census, SiteState.ROW_MAJOR)
    if consumer is SiteState.ASSUMES and transposed and row_major:
        return [
            f"dangerous mix: it takes every scale for transposed; {transposed} are, "
            f"{row_major} are row-major"
        ]
    if consumer is SiteState.COPIES_ALL and transposed:
        return [
            f"dangerous mix: it transposes the scales of {transposed} once more, "
            "wrong unless their strides tell of the first time"
        ]
    return []


def _sites_in(census: Census, *states: SiteState) -> str:
    names = (
        r.site if r.site in _SITES else f"{(r.path or '').rpartition('/')[2]}:{r.line}"
        for r in census.rows
        if r.state in states and (r.site in _SITES or r.consumer is not None)
    )
    return ", ".join(dict.fromkeys(names))
