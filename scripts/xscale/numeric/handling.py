"""What else was done to a scale than reading it, judged. Worker side.

The values may be right for all that: a scale made twice, marked by who did not write
it, or handed to code that nobody ran here is right by luck, or not known to be.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from overlaykit.core.errors import Finding
from xscale.numeric.cases import Case, Switch
from xscale.numeric.watch import Event

if TYPE_CHECKING:
    from xscale.numeric.judge import Run

NEXT = "read that line: between a kernel and a GEMM a scale is only handed on"


def handling_findings(
    case: Case, run: Run, pristine: Run | None, has_switch: bool
) -> Iterator[Finding]:
    """A finding for each site of whose scale more was made than a reading.

    Of a tree without the series' switch what it hands to stubs is left open.
    """
    yield from _writes(case, run)
    yield from _marks(case, run)
    yield from _quantizations(case, run, pristine)
    for event in run.watched.handed if has_switch else ():
        yield from _findings(
            case,
            run,
            event,
            "a scale is handed to code that is not run",
            "only code of the tree that is run here",
            event.what,
        )


def _writes(case: Case, run: Run) -> Iterator[Finding]:
    for event in run.watched.writes:
        yield from _findings(
            case,
            run,
            event,
            "something writes into what the kernel wrote",
            "nothing after the kernel itself",
            event.what,
        )
    if not run.watched.writes:
        for made in run.changed:
            event = Event("other bytes, by no operation of PyTorch's", "", made)
            yield from _findings(
                case,
                run,
                event,
                "what the kernel wrote has changed",
                "the bytes that the kernel wrote",
                event.what,
            )


def _marks(case: Case, run: Run) -> Iterator[Finding]:
    for mark in run.watched.marks:
        if mark.made is None or not mark.made.asked:
            found = "a tensor that no kernel was asked for transposed"
        elif not mark.by_requester:
            found = "a scale, after the call that asked for it had returned"
        else:
            continue
        yield from _findings(
            case,
            run,
            Event("", mark.where, mark.made),
            "is marked by another than asked for it",
            "the mark set in the call that asks the kernel for a transposed scale",
            found,
        )
    for event in run.watched.cleared:
        yield from _findings(
            case,
            run,
            event,
            "the mark does not last",
            "a mark that stays, for every reader",
            event.what,
        )
    for read in run.reads:
        made = run.producers[id(read)]
        if not read.marked or read.projection not in case.chain.sites:
            continue
        if not read.mark_known:
            found = "a mark that was not set as an attribute of that tensor"
        elif made is not None and not made.asked:
            found = "a mark on a scale that was not asked for transposed"
        else:
            continue
        yield from _findings(
            case,
            run,
            Event("", "", made),
            f"{read.projection} is given a mark that says nothing",
            "the mark that was set on what the kernel wrote transposed",
            found,
        )


def _quantizations(case: Case, run: Run, pristine: Run | None) -> Iterator[Finding]:
    for event in run.watched.quantizations:
        yield from _findings(
            case,
            run,
            event,
            "fp8 values are made by the tree's own operations",
            "those of a kernel",
            event.what,
        )
    # Check mode asks for every scale twice, which is what it is for.
    if pristine is None or case.switch is Switch.CHECK or run.raised is not None:
        return
    if pristine.raised is None and run.quantized > pristine.quantized:
        yield from _findings(
            case,
            run,
            Event("", ""),
            "something is quantized once more",
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
    """The sites that the scale is of, by who reads it; else all of the case's."""
    sites = case.chain.sites
    return {
        sites[read.projection]
        for read in run.reads
        if read.projection in sites and run.producers[id(read)] is made is not None
    } or case.sites
