"""Which kernels ran in which call of a module, and by what right we say so.

A kernel carries the id of the call that launched it; that call happened on a thread at
a time, and so within a module or outside of all. The arrows that profilers draw between
the two are not used: on ROCm they do not pair up.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import pairwise

from gatekit.checks import Check, equal, none_of
from traces.events import Launch, Span, Trace, Work
from traces.kernels import short


class Method(Enum):
    """How kernels came to their modules."""

    EAGER = "A: eager, by launch and module interval"
    CAPTURE = "B: graph replay, aligned with its capture"
    UNATTRIBUTED = "C: graph replay alone, cut at anchor kernels, unattributed"


@dataclass(frozen=True)
class Call:
    """What one call of one layer's module ran, in the order in which it ran."""

    layer: int
    step: int
    work: tuple[Work, ...]


@dataclass(frozen=True)
class Attribution:
    """The module's calls, and the controls that say whether to believe them."""

    method: Method
    calls: tuple[Call, ...]
    controls: tuple[Check, ...]
    replays: int = 0
    replayed: int = 0


@dataclass(frozen=True)
class Joined:
    """A trace's work by the launch that made it."""

    launches: dict[int, Launch]
    work: dict[int, list[Work]]
    controls: tuple[Check, ...]

    @property
    def graphs(self) -> list[Launch]:
        """The replays, in order."""
        graphs = (launch for launch in self.launches.values() if launch.is_graph)
        return sorted(graphs, key=lambda launch: launch.start)

    def replay(self, graph: Launch) -> list[Work]:
        """What one replay ran, in order."""
        return sorted(self.work.get(graph.correlation, ()), key=_order)


def _order(work: Work) -> tuple[int, str]:
    return work.start, str(work.stream)


def join(trace: Trace) -> Joined:
    """Kernels to launches, with the controls that nothing is missing or twofold."""
    launches: dict[int, Launch] = {}
    doubled: list[str] = []
    for launch in trace.launches:
        known = launches.setdefault(launch.correlation, launch)
        # One call of the runtime may show a second time, as the driver's, inside it.
        if known is not launch and not _nested(known, launch):
            doubled.append(f"{launch.correlation} ({known.call}, {launch.call})")
    work: defaultdict[int, list[Work]] = defaultdict(list)
    for one in trace.work:
        work[one.correlation].append(one)
    orphans = [one for key in work.keys() - launches.keys() for one in work[key]]
    manifold = [
        f"{key} ({len(made)} kernels)"
        for key, made in work.items()
        if len(made) > 1 and key in launches and launches[key].is_kernel
    ]
    controls = (
        none_of("unique correlation ids", "id used twice", [*doubled, *manifold]),
        none_of(
            "every kernel joined to its launch",
            "kernel without",
            (f"{short(one.name)} ({one.correlation})" for one in orphans),
        ),
        none_of(
            "no kernel ends before it starts",
            "negative time",
            (
                f"{short(one.name)} ({one.duration} ns)"
                for one in trace.work
                if one.duration < 0
            ),
        ),
    )
    return Joined(launches, dict(work), controls)


def _nested(one: Launch, other: Launch) -> bool:
    inner, outer = sorted((one, other), key=lambda launch: launch.end - launch.start)
    within = outer.start <= inner.start and inner.end <= outer.end
    return one.thread == other.thread and within


def balanced(joined: Joined) -> Check:
    """No launch whose kernel the profiler lost; a replay without kernels is one."""
    lost = (
        f"{launch.call} ({key})"
        for key, launch in joined.launches.items()
        if (launch.is_kernel or launch.is_graph) and key not in joined.work
    )
    return none_of("launches and kernels balance", "launch without a kernel", lost)


def undisturbed(trace: Trace, calls: Sequence[Call]) -> Check:
    """Whether all that ran among a call's own kernels, on their stream, is that call's.

    If not, some kernel's module was not found: launched by another thread, say, or by
    a clock that is off. Counted nowhere, it would be missing from the call.
    """
    owners = {id(work): (call.layer, call.step) for call in calls for work in call.work}
    streams: defaultdict[int | str, list[Work]] = defaultdict(list)
    for work in sorted(trace.work, key=_order):
        streams[work.stream].append(work)
    strange: list[str] = []
    for line in streams.values():
        told = [owners.get(id(work)) for work in line]
        last = {owner: at for at, owner in enumerate(told)}
        current = None
        for at, owner in enumerate(told):
            if current is None or at > last[current]:
                current = owner
            elif owner != current:
                layer, step = current
                strange.append(f"layer {layer}, step {step}: {short(line[at].name)}")
    return none_of(
        "nothing else runs among a call's kernels", "kernel from elsewhere", strange
    )


class Modules:
    """The calls of one class of modules, to be asked by thread and time."""

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
        starts, spans = self._threads.get(launch.thread, ([], []))
        at = bisect_right(starts, launch.start) - 1
        if at >= 0 and launch.end <= spans[at].end:
            return spans[at]
        return None

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
        return (
            Check(
                f"layers with a {module}",
                str(layers),
                str(found) if found else f"0; modules recorded: {known or 'none'}",
                found == layers,
            ),
            self._equally_often(),
            self._parents(trace),
            none_of("module calls apart", "call within another", overlaps),
        )

    def _equally_often(self) -> Check:
        times = Counter(self.counts.values())
        found = ", ".join(f"{n} layers {k} times" for k, n in times.items())
        right = len(times) == 1
        return Check("every layer called equally often", "yes", found or "none", right)

    def _parents(self, trace: Trace) -> Check:
        """Missing modules show in their parents: a decoder layer without attention."""
        calls = Counter(s.module for s in trace.spans if not s.annotation)
        parents = Counter(_parents(trace.spans, set(self.spans)))
        name = "every parent module has one"
        if not parents:
            return Check(name, "one each", "no parent recorded", True)
        parent, children = parents.most_common(1)[0]
        return equal(
            name,
            f"{calls[parent]} in calls of {parent}",
            f"{children} in calls of {parent}",
        )


def _parents(spans: Iterable[Span], children: set[Span]) -> Iterator[str]:
    """The class of the module right around each child, found in one pass."""
    open_spans: defaultdict[object, list[Span]] = defaultdict(list)
    modules = (span for span in spans if not span.annotation)
    for span in sorted(modules, key=lambda span: (span.start, -span.end)):
        stack = open_spans[span.thread]
        while stack and stack[-1].end <= span.start:
            stack.pop()
        if span in children and stack:
            yield stack[-1].module
        stack.append(span)


def steps_named(trace: Trace) -> Counter[str]:
    """The steps as SGLang annotates them, by stage and size."""
    return Counter(
        span.module
        for span in trace.spans
        if span.annotation and span.module.startswith("step[")
    )


def calls_of(placed: Iterable[tuple[tuple[int, int], Work]]) -> tuple[Call, ...]:
    """Group work by (layer, step)."""
    groups: defaultdict[tuple[int, int], list[Work]] = defaultdict(list)
    for key, work in placed:
        groups[key].append(work)
    return tuple(
        Call(layer, step, tuple(sorted(work, key=_order)))
        for (layer, step), work in sorted(groups.items())
    )


def _recorded(joined: Joined, modules: Modules) -> Check:
    """Elsewhere a memory call may come to nothing; of a module's, each has its copy."""
    lost = (
        f"{launch.call} ({key})"
        for key, launch in joined.launches.items()
        if key not in joined.work
        and not (launch.is_kernel or launch.is_graph)
        and modules.around(launch)
    )
    return none_of("memory calls of modules have their copies", "call without", lost)


def attribute_eager(
    trace: Trace, joined: Joined, module: str, layers: int
) -> Attribution:
    """Method A."""
    modules = Modules(trace, module)
    placed = []
    for key, made in joined.work.items():
        launch = joined.launches.get(key)
        span = modules.around(launch) if launch else None
        if span is not None:
            place = (span.instance, modules.step(span))
            placed += [(place, work) for work in made]
    calls = calls_of(placed)
    controls = modules.controls(module, layers, trace)
    steps = sum(steps_named(trace).values())
    if steps:
        expected = len(modules.counts) * steps
        name = f"calls of {module} in {steps} steps"
        controls += (equal(name, expected, len(modules.spans)),)
    controls += (equal("calls that ran kernels", len(modules.spans), len(calls)),)
    controls += (balanced(joined), _recorded(joined, modules))
    return Attribution(Method.EAGER, calls, controls)
