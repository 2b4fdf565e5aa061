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
from dataclasses import dataclass
from itertools import pairwise

from gatekit.records.checks import Check, none_of
from gatekit.traces.events import Launch, Span, Trace
from gatekit.traces.nesting import ROUNDING_NS, nest


@dataclass(frozen=True)
class _Line:
    """One thread's calls, in order: when each began and ended, and which it is."""

    starts: list[int]
    ends: list[int]
    spans: list[Span]


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
        self._nesting = nest(s for s in trace.spans if not s.annotation)
        self._threads = {key: self._line(line) for key, line in threads.items()}
        self.counts = counts

    def _line(self, spans: list[Span]) -> _Line:
        """With what they called they may have lasted longer than they say."""
        own = ((span.start, span.end) for span in spans)
        reach = self._nesting.reach
        times = [reach.get(id(s), o) for s, o in zip(spans, own, strict=True)]
        return _Line([start for start, _ in times], [end for _, end in times], spans)

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
        line = self._threads.get(launch.thread)
        if line is None:
            return []
        at = bisect_right(line.starts, launch.start)
        if at == len(line.starts) or launch.end < line.starts[at]:
            # Nearly all are well within one, or well away from any.
            if not at or line.ends[at - 1] < launch.start:
                return []
            if launch.end <= line.ends[at - 1] and line.starts[at - 1] < launch.start:
                return [line.spans[at - 1]]
        near = _near(line, launch)
        within = [at for at in near if _nests(line, at, launch, 0)]
        if not within:
            within = [at for at in near if _nests(line, at, launch, ROUNDING_NS)]
        if len(within) == 1 or not near:
            return [line.spans[at] for at in within]
        return [*(line.spans[at] for at in near), None]

    def step(self, span: Span) -> int:
        return self._step[span]

    def controls(self, module: str, layers: int, trace: Trace) -> tuple[Check, ...]:
        """As many modules as layers, called equally often, once for each parent."""
        seen = Counter(span.module for span in trace.spans if not span.annotation)
        known = ", ".join(f"{name} x{n}" for name, n in seen.most_common(6))
        found = len(self.counts)
        overlaps = (
            f"{module}_{b.instance}"
            for line in self._threads.values()
            for a, b in pairwise(line.spans)
            if b.start < a.end
        )
        return (
            Check(
                f"layers with a {module}",
                str(layers),
                str(found) if found else f"0; modules recorded: {known or 'none'}",
                found == layers,
            ),
            self._equally_often(),
            self._parents(seen),
            none_of("module calls apart", "call within another", overlaps),
            none_of("modules nest in modules", "overlap of two", self._nesting.astride),
        )

    def _equally_often(self) -> Check:
        times = Counter(self.counts.values())
        found = ", ".join(f"{n} layers {k} times" for k, n in times.items())
        right = len(times) == 1
        return Check("every layer called equally often", "yes", found or "none", right)

    def _parents(self, calls: Counter[str]) -> Check:
        """Missing modules show in their parents: a decoder layer without attention. A
        layer may have several, then each as many."""
        parents = self._nesting.parents
        name = "every parent module has one"
        found = [p for span in self.spans if (p := parents.get(id(span)))]
        if not found:
            return Check(name, "one each", "no parent recorded", True)
        parent, children = Counter(one.module for one in found).most_common(1)[0]
        each = Counter(id(one) for one in found if one.module == parent)
        count, several = calls[parent], max(each.values())
        more = f", {several} in each" if several > 1 else ""
        return Check(
            name,
            f"{count * several} in calls of {parent}{more}",
            f"{children} in calls of {parent}",
            children == count * several,
        )


def _near(line: _Line, launch: Launch) -> list[int]:
    """Those that it has time in common with; if it took none, also at a bound."""
    point = launch.start == launch.end
    at = (bisect_right if point else bisect_left)(line.starts, launch.end) - 1
    near: list[int] = []
    while at >= 0 and (
        line.ends[at] > launch.start or (point and line.ends[at] == launch.start)
    ):
        near.append(at)
        at -= 1
    return near


def _nests(line: _Line, at: int, launch: Launch, slack: int) -> bool:
    begun = line.starts[at] - slack <= launch.start
    return begun and launch.end <= line.ends[at] + slack
