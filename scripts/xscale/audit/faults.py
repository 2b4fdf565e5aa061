"""What goes wrong when a guard opens, from runs with it shut and with it open.

Only what is new counts: a case that fails with the guard shut as well proves nothing
about the opening, and is listed as not judged.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from xscale.numeric.cases import Case
from xscale.numeric.results import COPIED, CaseResult, Reading, Spot
from xscale.numeric.situations import BehindCase
from xscale.sites import PARAMETER


@dataclass(frozen=True)
class Fault:
    """One fault at one place of the tree. ``cases`` are the runs that met it."""

    what: str
    path: str | None
    line: int | None
    function: str
    sites: tuple[str, ...]
    cases: tuple[str, ...]
    found: str

    @property
    def at(self) -> str:
        return f"{self.path}:{self.line}" if self.path else ""


@dataclass(frozen=True)
class NotJudged:
    """A run that proves nothing, and why."""

    case: str
    why: str


def faults_of(
    shut: Iterable[CaseResult], opened: Iterable[CaseResult]
) -> tuple[tuple[Fault, ...], tuple[NotJudged, ...]]:
    """The faults, those of the same kind and place as one; and the runs that are not
    judged."""
    before = {result.case: result for result in shut}
    found: list[Fault] = []
    left_out: dict[NotJudged, None] = {}
    for after in opened:
        was = before[after.case]
        why = _unknown(was, after)
        if why is not None:
            left_out[NotJudged(_named(after.case), why)] = None
        else:
            found += _faults(was, after)
    return merged(found), tuple(left_out)


def _unknown(was: CaseResult, after: CaseResult) -> str | None:
    """Why the case proves nothing; None if it does."""
    _, cannot, what = (was.raised or "").partition("NotDriven: ")
    if cannot:
        return f"cannot be run: {what}"
    if was.raised is not None:
        return f"fails with the guard shut as well: {was.raised}"
    if f"unexpected keyword argument '{PARAMETER}'" in (after.raised or ""):
        return f"this AITER is too old: {after.raised}; use AITER v0.1.16 or newer"
    return None


def merged(faults: Iterable[Fault]) -> tuple[Fault, ...]:
    """Each kind at each place once, in the order of paths and lines."""
    found: dict[tuple[str, str], Fault] = {}
    for fault in faults:
        same = found.setdefault((fault.at, fault.what), fault)
        found[fault.at, fault.what] = replace(
            same,
            sites=tuple(sorted({*same.sites, *fault.sites})),
            cases=tuple(dict.fromkeys((*same.cases, *fault.cases))),
        )
    return tuple(sorted(found.values(), key=_place))


def _place(fault: Fault) -> tuple[str, int]:
    return fault.path or "", fault.line or 0


def _named(case: Case) -> str:
    """The case without what all of an audit's cases have in common."""
    if isinstance(case, BehindCase):
        return str(case)
    return f"{case.chain.value} ({case.shape.name})"


def _faults(was: CaseResult, after: CaseResult) -> Iterator[Fault]:
    if after.raised is not None:
        sites = tuple(sorted(after.case.sites))
        yield _fault(after, after.raised_at, sites, *_error(after.raised))
        return
    known = {(r.projection, r.route) for r in was.readings if not r.bytes}
    wrong = [r for r in after.readings if not r.bytes]
    explained = {""}
    for reading in wrong:
        if (reading.projection, reading.route) not in known:
            explained.add(reading.site)
            yield from _wrong_scale(after, reading)
    same = {(f.site, f.what) for f in was.findings}
    for finding in after.findings:
        new = (finding.site, finding.what) not in same
        if new and (finding.site or "") not in explained:
            what = finding.what.removesuffix(f" ({after.case})")
            text = f"expected {finding.expected}; found {finding.found}"
            if COPIED in what:
                what, text = "copies a scale", what
            spot = Spot(finding.path, finding.line or 0, "") if finding.path else None
            yield _fault(after, spot, (finding.site or "",), what, text)


def _wrong_scale(after: CaseResult, reading: Reading) -> Iterator[Fault]:
    total = reading.shape[0] * reading.shape[1]
    for spot in reading.spoiled or (None,):
        yield _fault(
            after,
            spot,
            (reading.site,),
            "spoils a scale",
            f"on the {reading.route.value} route {reading.projection}'s GEMM reads "
            f"{reading.wrong} of {total} values wrong, and nothing raises; shape "
            f"{reading.shape}, strides {reading.strides}",
        )


def _fault(
    after: CaseResult,
    spot: Spot | None,
    sites: tuple[str, ...],
    what: str,
    found: str,
) -> Fault:
    path, line, function = None, None, ""
    if spot is not None:
        path, line, function = spot.path, spot.line, spot.function
        if spot.caller:
            found = f"{found}; called at {spot.caller}"
    return Fault(what, path, line, function, sites, (_named(after.case),), found)


def _error(raised: str) -> tuple[str, str]:
    """What happens, and the error's text without the place that ends it."""
    text = raised.partition(" (python/")[0]
    return ("raises" if "Error:" in text else "does not raise"), text
