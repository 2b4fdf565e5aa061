"""The calls of one class of modules, and the call that each launch belongs to.

Calls on a thread nest: what begins inside a module call ends inside it. Profilers round
times, so a caller may appear to end before its callee, or to start after it (Kineto
1082). So intervals that overlap without nesting do not prove that a launch was outside.
If the times are off by rounding only and exactly one module fits, the launch belongs to
it; otherwise it belongs to none, and a control does not hold. The same applies to
modules inside modules.
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
    """One thread's calls, in order: their starts, ends and spans."""

    starts: list[int]
    ends: list[int]
    spans: list[Span]


class Modules:
    """The calls of a module class, searchable by thread and time."""

    def __init__(self, trace: Trace, module: str) -> None:
        spans = [span for span in trace.spans if span.module == module]
        modules = [span for span in spans if not span.annotation]
        # Annotations are used if modules were not recorded.
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
        """The spans with their times extended to cover the calls inside them."""
        own = ((span.start, span.end) for span in spans)
        reach = self._nesting.reach
        times = [reach.get(id(s), o) for s, o in zip(spans, own, strict=True)]
        return _Line([start for start, _ in times], [end for _, end in times], spans)

    def around(self, launch: Launch) -> Span | None:
        """The call that contains the launch; None if there is none or it is
        ambiguous."""
        candidates = self._candidates(launch)
        return candidates[0] if len(candidates) == 1 else None

    def nested(self, launches: Iterable[Launch]) -> Check:
        """Whether no launch is ambiguous."""
        return none_of(
            "launches nest in module calls",
            "launch across the bounds of a call",
            (
                f"{launch.call} ({launch.correlation})"
                for launch in launches
                if len(self._candidates(launch)) > 1
            ),
        )

    def _candidates(self, launch: Launch) -> list[Span | None]:
        """The call that the launch nests in, exactly or within rounding; empty if it
        overlaps none; otherwise all calls that it may belong to."""
        line = self._threads.get(launch.thread)
        if line is None:
            return []
        at = bisect_right(line.starts, launch.start)
        if at == len(line.starts) or launch.end < line.starts[at]:
            # The common cases: well inside one call, or well outside all.
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
        """There must be one module per layer, called equally often, once per parent."""
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
        """A missing module shows in its parent, such as a decoder layer without
        attention. A parent may have several, but then all the same number."""
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
    """The calls that overlap the launch in time; for a launch of no duration, also
    those that it touches."""
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
