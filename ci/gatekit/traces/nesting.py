"""Which module was called by which, in times that are rounded."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from gatekit.traces.events import Span

# By how much times that contradict each other may differ and still be rounded ones of
# calls that nest: profilers have written whole microseconds, and now write nanoseconds.
ROUNDING_NS = 1000


@dataclass(frozen=True)
class Nesting:
    """Each span's caller, by the span's ``id``; how long those lasted, by theirs, that
    seem to begin after what they called or to end before it; what does not nest."""

    parents: dict[int, Span]
    reach: dict[int, tuple[int, int]]
    astride: list[str]


def nest(spans: Iterable[Span]) -> Nesting:
    """In one pass over the spans as they were entered, thread by thread."""
    parents: dict[int, Span] = {}
    reach: dict[int, tuple[int, int]] = {}
    astride: list[str] = []
    stacks: defaultdict[object, list[Span]] = defaultdict(list)
    for span in sorted(spans, key=lambda span: (span.start, -span.end)):
        stack = stacks[span.thread]
        # Entered, it seems, right before the one that called them.
        early: list[Span] = []
        while stack:
            top = stack[-1]
            if top.end <= span.start:
                stack.pop()
            elif span.end <= top.end + ROUNDING_NS:
                break
            elif top.end <= span.start + ROUNDING_NS:
                stack.pop()
            elif span.start <= top.start + ROUNDING_NS:
                early.append(stack.pop())
            else:
                astride.append(
                    f"{top.module}_{top.instance} and {span.module}_{span.instance}"
                )
                break
        if stack:
            parents[id(span)] = stack[-1]
        for caller in reversed(stack):
            begins, ends = reach.get(id(caller), (caller.start, caller.end))
            if span.end <= ends:
                break
            if span.end <= caller.end + ROUNDING_NS:
                reach[id(caller)] = begins, span.end
        if early:
            parents[id(early[-1])] = span
            reach[id(span)] = early[-1].start, span.end
        stack += [span, *reversed(early)]
    return Nesting(parents, reach, astride)
