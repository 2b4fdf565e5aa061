"""Findings about operations on a scale other than reading it. Worker side.

The values may still be right. But a scale that was made twice, marked by code that did
not write it, or passed to code that is not run here is right by luck, or unknown.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from overlaykit.core.errors import Finding
from xscale.numeric.cases import Case, Switch
from xscale.numeric.watch import Event

if TYPE_CHECKING:
    from xscale.numeric.judge import Run

NEXT = "read that line: between a kernel and a GEMM, a scale may only be passed on"


def handling_findings(
    case: Case, run: Run, pristine: Run | None, has_switch: bool
) -> Iterator[Finding]:
    """A finding for each site whose scale was used in other ways than by a reading.

    For a tree without the series' switch, scales passed to stubs are ignored.
    """
    yield from _writes(case, run)
    yield from _marks(case, run)
    yield from _quantizations(case, run, pristine)
    for event in run.watched.stub_calls if has_switch else ():
        yield from _findings(
            case,
            run,
            event,
            "a scale is passed to code that is not run",
            "passed only to code of the tree that is run here",
            event.what,
        )


def _writes(case: Case, run: Run) -> Iterator[Finding]:
    for event in run.watched.writes:
        yield from _findings(
            case,
            run,
            event,
            "something overwrites what the kernel wrote",
            "no write after the kernel",
            event.what,
        )
    if not run.watched.writes:
        for made in run.changed:
            event = Event("other bytes, not by an operation of PyTorch", "", made)
            yield from _findings(
                case,
                run,
                event,
                "the kernel's output has changed",
                "the bytes that the kernel wrote",
                event.what,
            )


def _marks(case: Case, run: Run) -> Iterator[Finding]:
    for mark in run.watched.marks:
        if mark.made is None or not mark.made.asked:
            found = "a tensor that was not requested transposed from a kernel"
        elif not mark.by_requester:
            found = "a scale, after the call that requested it had returned"
        else:
            continue
        yield from _findings(
            case,
            run,
            Event("", mark.where, mark.made),
            "is marked by code that did not request it",
            "the mark set in the call that requests a transposed scale from the kernel",
            found,
        )
    for event in run.watched.cleared:
        yield from _findings(
            case,
            run,
            event,
            "the mark is lost",
            "a mark that stays for every reader",
            event.what,
        )
    for read in run.reads:
        made = run.producers[id(read)]
        if not read.marked or read.projection not in case.chain.sites:
            continue
        if not read.mark_known:
            found = "a mark that was not set as an attribute of that tensor"
        elif made is not None and not made.asked:
            found = "a mark on a scale that was not requested transposed"
        else:
            continue
        yield from _findings(
            case,
            run,
            Event("", "", made),
            f"{read.projection} receives an unfounded mark",
            "the mark that was set on the transposed scale",
            found,
        )


def _quantizations(case: Case, run: Run, pristine: Run | None) -> Iterator[Finding]:
    for event in run.watched.quantizations:
        yield from _findings(
            case,
            run,
            event,
            "the tree's own operations make fp8 values",
            "fp8 values from a kernel",
            event.what,
        )
    # Check mode computes every scale twice, by design.
    if pristine is None or case.switch is Switch.CHECK or run.raised is not None:
        return
    if pristine.raised is None and run.quantized > pristine.quantized:
        yield from _findings(
            case,
            run,
            Event("", ""),
            "an additional quantization runs",
            f"{pristine.quantized} quantizations, as in the pristine tree",
            f"{run.quantized}",
        )


def _findings(
    case: Case, run: Run, event: Event, what: str, expected: str, found: str
) -> Iterator[Finding]:
    for site in sorted(_sites(case, run, event.made)):
        yield Finding(
            f"{what} ({case})",
            site=site,
            expected=expected,
            found=f"{found}, at {event.where}" if event.where else found,
            next_step=NEXT,
        )


def _sites(case: Case, run: Run, made: Any) -> Iterable[str]:
    """The scale's sites, by its readers; if unknown, all sites of the case."""
    sites = case.chain.sites
    return {
        sites[read.projection]
        for read in run.reads
        if read.projection in sites and run.producers[id(read)] is made is not None
    } or case.sites
