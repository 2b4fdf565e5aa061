"""What keeps a tree from having adopted the optimization, wholly and alone.

A producer is judged together with the consumer that reads it: right or wrong is a
matter of both. A call that could not be paired is a finding of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import dropwhile

from overlaykit.core.errors import Finding
from xscale.census.rows import Census, SiteRow
from xscale.sites import CATALOGUE, Role, State

_SITES = {site.id: site for site in CATALOGUE}

_AGAIN = "and the consumer transposes it again: its GEMM reads scrambled scales"
_TOGETHER: Mapping[tuple[State, State], str] = {
    (
        State.ROW_MAJOR,
        State.COPIES_UNMARKED,
    ): "left behind: right, but copied each time",
    (State.ROW_MAJOR, State.ASSUMES): (
        "dangerous mix: the consumer takes it for transposed, its GEMM reads scrambled "
        "scales"
    ),
    (State.UNMARKED, State.ASSUMES): "right only as long as every producer is so",
    (
        State.UNMARKED,
        State.COPIES_UNMARKED,
    ): f"dangerous mix: it is not marked, {_AGAIN}",
    (State.ROW_MAJOR, State.NEEDS_HONEST): (
        "dangerous mix: the Triton GEMM takes it for transposed and reads scrambled "
        "scales"
    ),
    (State.UNMARKED, State.NEEDS_HONEST): (
        f"dangerous mix: its strides do not tell that it is transposed, {_AGAIN}"
    ),
    (State.UNMARKED, State.COPIES_ALL): f"dangerous mix: it is transposed, {_AGAIN}",
}
_RIGHT = {
    *((State.ROW_MAJOR, by) for by in (State.COPIES_ALL, State.COPIES_UNMARKED)),
    *(
        (told, by)
        for told in (State.COPIED, State.HONEST)
        for by in (
            State.COPIES_ALL,
            State.COPIES_UNMARKED,
            State.ASSUMES,
            State.NEEDS_HONEST,
        )
    ),
    (State.MARKED, State.COPIES_UNMARKED),
    (State.MARKED, State.ASSUMES),
    (State.UNMARKED, State.ASSUMES),
}
"""A producer and a consumer of which both GEMMs get right values."""
_NEXT_STEP: Mapping[State, str] = {
    State.ROW_MAJOR: "apply the series' patch for this call: transpose and mark",
    State.COPIED: "apply the series' patch for this call instead of the copy",
    State.UNMARKED: "set the marker on the very tensor that is handed on",
    State.COPIES_ALL: "apply the series' patch for the consumer",
    State.ASSUMES: "apply the series' patch for the consumer",
    State.GONE: "find what took its place upstream, then rebase or drop the site",
    State.MARKED: "guard it by what the pinned layers have",
    State.HONEST: "apply the series' patch for this call, or retire the patch",
    State.NEEDS_HONEST: "give it honest strides from every producer; retire the patch",
    State.UNKNOWN: "read the source; teach contract.judge its form or rewrite it",
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

    Empty iff every site of the catalogue is in the state it should be in, none is
    known to be dead and no call stands outside the catalogue.
    """
    consumers = {r.state for r in census.rows if r.role is Role.CONSUMER}
    return tuple(
        _problem(row, census, consumers)
        for row in census.rows
        if row.site not in _SITES
        or row.state is not _SITES[row.site].expected
        or row.live is False
    )


def _effects(pairs: Sequence[tuple[State, State]]) -> list[_Effect]:
    """What is known of each pair of a producer and a consumer."""
    return [
        _Effect(_TOGETHER[pair], pair not in _RIGHT)
        for pair in pairs
        if pair in _TOGETHER
    ]


def _danger(effects: Sequence[_Effect]) -> str:
    """From the first dangerous effect on; empty without one."""
    rest = dropwhile(lambda effect: not effect.dangerous, effects)
    return "; ".join(effect.text for effect in rest)


def _problem(row: SiteRow, census: Census, consumers: set[State]) -> Problem:
    if row.site not in _SITES:
        return _outside(row, census)
    site = _SITES[row.site]
    if row.role is Role.CONSUMER:
        effects = [_Effect(text, True) for text in _mixture(row.state, census)]
    else:
        effects = _effects([(row.state, s) for s in State if s in consumers])
    dead = ", dead" if row.live is False else ""
    what = f"{site.id} ({site.meaning}): {row.state.value}{dead}"
    finding = Finding(
        "; ".join([what, *(effect.text for effect in effects)]),
        path=row.path,
        line=row.line,
        scope=row.scope,
        site=row.site,
        expected=site.expected.value + (", live" if dead else ""),
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
        next_step="show where its scale goes; adopt it and add it to the catalogue",
    )
    return Problem(finding, _danger([effect]))


def _together(row: SiteRow, census: Census) -> tuple[_Effect, str]:
    """What is wrong with it, and what there should be instead."""
    expected = "no call outside the catalogue in xscale.sites"
    if row.role is Role.CONSUMER:
        return _Effect("", False), expected
    if row.state is State.MISREAD:
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


def _mixture(consumer: State, census: Census) -> list[str]:
    """What a consumer that treats all scales alike gets wrong."""
    transposed = _sites_in(census, State.MARKED, State.UNMARKED)
    row_major = _sites_in(census, State.ROW_MAJOR)
    if consumer is State.ASSUMES and transposed and row_major:
        return [
            f"dangerous mix: it takes every scale for transposed; {transposed} are, "
            f"{row_major} are row-major"
        ]
    if consumer is State.COPIES_ALL and transposed:
        return [
            f"dangerous mix: it transposes the scales of {transposed} once more, "
            "wrong unless their strides tell of the first time"
        ]
    return []


def _sites_in(census: Census, *states: State) -> str:
    names = (
        r.site if r.site in _SITES else f"{(r.path or '').rpartition('/')[2]}:{r.line}"
        for r in census.rows
        if r.state in states and (r.site in _SITES or r.consumer is not None)
    )
    return ", ".join(dict.fromkeys(names))
