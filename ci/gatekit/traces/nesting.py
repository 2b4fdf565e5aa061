"""Find the caller of each module call, with rounded times."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from gatekit.traces.events import Span

# The largest contradiction between times that rounding explains: older profilers wrote
# whole microseconds, newer ones write nanoseconds.
ROUNDING_NS = 1000


@dataclass(frozen=True)
class Nesting:
    """``parents``: each span's caller, by the span's ``id``. ``reach``: corrected times
    of callers that seem to start after or end before their callees, by the caller's
    ``id``. ``astride``: pairs that overlap without nesting."""

    parents: dict[int, Span]
    reach: dict[int, tuple[int, int]]
    astride: list[str]


def nest(spans: Iterable[Span]) -> Nesting:
    """Nest the spans of each thread, in one pass ordered by start."""
    parents: dict[int, Span] = {}
    reach: dict[int, tuple[int, int]] = {}
    astride: list[str] = []
    stacks: defaultdict[object, list[Span]] = defaultdict(list)
    for span in sorted(spans, key=lambda span: (span.start, -span.end)):
        stack = stacks[span.thread]
        # Spans that seem to start right before their caller.
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
