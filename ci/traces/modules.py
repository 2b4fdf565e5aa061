"""The calls of one class of modules, and which of them a launch was made in.

A thread's calls nest: what begins within a module's call ends within it. A profiler
rounds times, so that a caller may seem to leave before its callee does, or to enter
after it (Kineto 1082). Intervals that overlap and do not nest are therefore no evidence
that a launch was outside. Where one module alone can be meant, for the times are off by
no more than rounding, the launch is that module's; where not, nobody's, and a control
says so. The same holds of modules within modules.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable
from itertools import pairwise

from gatekit.checks import Check, equal, none_of
from traces.events import Launch, Span, Trace
from traces.nesting import ROUNDING_NS, nest


class Modules:
    """The calls, to be asked by thread and time."""

    def __init__(self, trace: Trace, module: str) -> None:
        spans = [span for span in trace.spans if span.module == module]
        modules = [span for span in spans if not span.annotation]
        # An annotation serves where modules were not recorded.
        self.spans = sorted(modules or spans, key=lambda span: span.start)
        counts: Counter[int] = Counter()
        self._step: dict[Span, int] = {}
        threads: defaultdict[object, list[Span]] = defaultdict(list)
        for span in self.spans:
            self._step[span] = counts[span.instance]
            counts[span.instance] += 1
            threads[span.thread].append(span)
        self._threads = {
            key: ([span.start for span in line], line) for key, line in threads.items()
        }
        self.counts = counts

    def around(self, launch: Launch) -> Span | None:
        """The call that the launch was made in; none, too, if that cannot be told."""
        meant = self._meant(launch)
        return meant[0] if len(meant) == 1 else None

    def nested(self, launches: Iterable[Launch]) -> Check:
        """Whether it can be told of every launch."""
        return none_of(
            "launches nest in module calls",
            "launch across the bounds of a call",
            (
                f"{launch.call} ({launch.correlation})"
                for launch in launches
                if len(self._meant(launch)) > 1
            ),
        )

    def _meant(self, launch: Launch) -> list[Span | None]:
        """The call it nests in, or that its times are off by rounding from nesting in;
        nothing, if it overlaps none; otherwise all that it may be meant to be in."""
        starts, spans = self._threads.get(launch.thread, ([], []))
        at = bisect_right(starts, launch.start)
        if at == len(starts) or launch.end < starts[at]:
            # Nearly all are well within one, or well away from any.
            if not at or spans[at - 1].end < launch.start:
                return []
            if launch.end <= spans[at - 1].end and starts[at - 1] < launch.start:
                return [spans[at - 1]]
        near = self._near(launch)
        within = [span for span in near if _nests(launch, span, 0)]
        if not within:
            within = [span for span in near if _nests(launch, span, ROUNDING_NS)]
        return list(within) if len(within) == 1 or not near else [*near, None]

    def _near(self, launch: Launch) -> list[Span]:
        """Those that it has time in common with; if it took none, also at a bound."""
        starts, spans = self._threads.get(launch.thread, ([], []))
        point = launch.start == launch.end
        at = (bisect_right if point else bisect_left)(starts, launch.end) - 1
        near: list[Span] = []
        while at >= 0 and (
            spans[at].end > launch.start or (point and spans[at].end == launch.start)
        ):
            near.append(spans[at])
            at -= 1
        return near

    def step(self, span: Span) -> int:
        return self._step[span]

    def controls(self, module: str, layers: int, trace: Trace) -> tuple[Check, ...]:
        """As many modules as layers, called equally often, once for each parent."""
        seen = Counter(span.module for span in trace.spans if not span.annotation)
        known = ", ".join(f"{name} x{n}" for name, n in seen.most_common(6))
        found = len(self.counts)
        overlaps = (
            f"{module}_{b.instance}"
            for _, line in self._threads.values()
            for a, b in pairwise(line)
            if b.start < a.end
        )
        nesting = nest(span for span in trace.spans if not span.annotation)
        return (
            Check(
                f"layers with a {module}",
                str(layers),
                str(found) if found else f"0; modules recorded: {known or 'none'}",
                found == layers,
            ),
            self._equally_often(),
            self._parents(seen, nesting.parents),
            none_of("module calls apart", "call within another", overlaps),
            none_of("modules nest in modules", "overlap of two", nesting.astride),
        )

    def _equally_often(self) -> Check:
        times = Counter(self.counts.values())
        found = ", ".join(f"{n} layers {k} times" for k, n in times.items())
        right = len(times) == 1
        return Check("every layer called equally often", "yes", found or "none", right)

    def _parents(self, calls: Counter[str], parents: dict[int, Span]) -> Check:
        """Missing modules show in their parents: a decoder layer without attention."""
        of = (parents.get(id(span)) for span in self.spans)
        found = Counter(parent.module for parent in of if parent)
        name = "every parent module has one"
        if not found:
            return Check(name, "one each", "no parent recorded", True)
        parent, children = found.most_common(1)[0]
        return equal(
            name,
            f"{calls[parent]} in calls of {parent}",
            f"{children} in calls of {parent}",
        )


def _nests(launch: Launch, span: Span, slack: int) -> bool:
    return span.start - slack <= launch.start and launch.end <= span.end + slack
