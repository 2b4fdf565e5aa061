"""How kernels are attributed to module calls.

A kernel has the id of the call that launched it. That call happened on a thread at a
time, so inside a module call or outside all of them (:mod:`gatekit.traces.modules`).
The profilers' flow arrows are not used: on ROCm they do not pair up.

A kernel or graph launch without a GPU record means that the profiler lost records. A
copy of 0 bytes has no record; ROCm's profiler writes the size, CUDA's does not, so
there a copy without a record inside a module counts as lost. A fill without a record is
not a loss: libraries fill 0 bytes (up to two thirds of the fills in real CUDA traces
have no record), neither profiler writes the size, and a fill is not a copy.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum

from gatekit.records.checks import Check, equal, none_of
from gatekit.traces.events import Launch, Trace, Work
from gatekit.traces.kernels import plain, short
from gatekit.traces.modules import Modules
from gatekit.traces.nesting import ROUNDING_NS


class Method(Enum):
    """How kernels were attributed to modules."""

    EAGER = "A: eager, by launch and module interval"
    CAPTURE = "B: graph replay, aligned with its capture"
    UNATTRIBUTED = "C: graph replay alone, cut at anchor kernels, unattributed"


@dataclass(frozen=True)
class Call:
    """The GPU work of one module call in one layer, in order."""

    layer: int
    step: int
    work: tuple[Work, ...]


@dataclass(frozen=True)
class Attribution:
    """The module's calls, and the controls that must hold for them to be valid."""

    method: Method
    calls: tuple[Call, ...]
    controls: tuple[Check, ...]
    replays: int = 0
    replayed: int = 0


@dataclass(frozen=True)
class LaunchMap:
    """GPU work by the launch that started it."""

    launches: dict[int, Launch]
    work: dict[int, list[Work]]
    controls: tuple[Check, ...]

    @property
    def graphs(self) -> list[Launch]:
        """The graph launches, in order."""
        graphs = (launch for launch in self.launches.values() if launch.is_graph)
        return sorted(graphs, key=lambda launch: launch.start)

    def replay(self, graph: Launch) -> list[Work]:
        """The work of one replay, in order."""
        return sorted(self.work.get(graph.correlation, ()), key=_order)


def _order(work: Work) -> tuple[int, str]:
    return work.start, str(work.stream)


def map_launches(trace: Trace) -> LaunchMap:
    """Match GPU work to launches; the controls detect missing and duplicate records."""
    launches: dict[int, Launch] = {}
    doubled: list[str] = []
    for launch in trace.launches:
        known = launches.setdefault(launch.correlation, launch)
        # A runtime call may appear again as the driver call inside it.
        if known is not launch and not _nested(known, launch):
            doubled.append(f"{launch.correlation} ({known.call}, {launch.call})")
    work: defaultdict[int, list[Work]] = defaultdict(list)
    for one in trace.work:
        work[one.correlation].append(one)
    orphans = [one for key, ran in work.items() if key not in launches for one in ran]
    manifold = [
        f"{key} ({len(made)} kernels)"
        for key, made in work.items()
        if len(made) > 1 and key in launches and launches[key].is_kernel
    ]
    others = (
        f"{short(one.name)} ({key}), launched {short(launches[key].kernel)}"
        for key, ran in work.items()
        for one in ran
        if key in launches
        and launches[key].kernel not in ("", one.name)
        and plain(launches[key].kernel) != plain(one.name)
    )
    controls = (
        none_of("unique correlation ids", "id used twice", [*doubled, *manifold]),
        none_of(
            "every kernel joined to its launch",
            "kernel without",
            (f"{short(one.name)} ({one.correlation})" for one in orphans),
        ),
        none_of("kernels match their launches", "other kernel", others),
        none_of(
            "no kernel ends before it starts",
            "negative time",
            (
                f"{short(one.name)} ({one.duration} ns)"
                for one in trace.work
                if one.duration < 0
            ),
        ),
        none_of("no call ends before it starts", "negative time", _backwards(trace)),
    )
    return LaunchMap(launches, dict(work), controls)


def _nested(one: Launch, other: Launch) -> bool:
    inner, outer = sorted((one, other), key=lambda launch: launch.end - launch.start)
    within = (
        outer.start - ROUNDING_NS <= inner.start
        and inner.end <= outer.end + ROUNDING_NS
    )
    return one.thread == other.thread and within


def _backwards(trace: Trace) -> Iterable[str]:
    for launch in trace.launches:
        if launch.end < launch.start:
            yield f"{launch.call} ({launch.end - launch.start} ns)"
    for span in trace.spans:
        if span.end < span.start:
            yield f"{span.module}_{span.instance} ({span.end - span.start} ns)"


def balanced(launch_map: LaunchMap) -> Check:
    """Every kernel and graph launch must have GPU work; otherwise records were lost."""
    lost = (
        f"{launch.call} ({key})"
        for key, launch in launch_map.launches.items()
        if (launch.is_kernel or launch.is_graph) and key not in launch_map.work
    )
    return none_of("launches and kernels balance", "launch without a kernel", lost)


def undisturbed(trace: Trace, calls: Sequence[Call]) -> Check:
    """Whether every kernel between a call's own kernels, on their stream, is that
    call's.

    If not, the module of some kernel was not found, because another thread launched it
    or the clocks differ. The call would then lack a kernel.
    """
    owners = {id(work): (call.layer, call.step) for call in calls for work in call.work}
    streams: defaultdict[int | str, list[Work]] = defaultdict(list)
    for work in sorted(trace.work, key=_order):
        streams[work.stream].append(work)
    strange: list[str] = []
    for line in streams.values():
        line_owners = [owners.get(id(work)) for work in line]
        last = {owner: at for at, owner in enumerate(line_owners)}
        current = None
        for at, owner in enumerate(line_owners):
            if current is None or at > last[current]:
                current = owner
            elif owner != current:
                layer, step = current
                strange.append(f"layer {layer}, step {step}: {short(line[at].name)}")
    return none_of(
        "no other kernel runs within a call",
        "kernel of no module or of another call",
        strange,
    )


def steps_named(trace: Trace) -> Counter[str]:
    """SGLang's step annotations, counted by stage and size."""
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


def _recorded(launch_map: LaunchMap, modules: Modules) -> Check:
    """Within modules every copy must have a GPU record, unless its size is 0 bytes."""
    lost = (
        f"{launch.call} ({key})"
        for key, launch in launch_map.launches.items()
        if key not in launch_map.work
        and not (launch.is_kernel or launch.is_graph)
        and not (launch.is_fill or launch.empty)
        and modules.around(launch)
    )
    return none_of("memory calls in modules have records", "call without", lost)


def attribute_eager(
    trace: Trace, launch_map: LaunchMap, module: str, layers: int
) -> Attribution:
    """Method A: by launch and module interval."""
    modules = Modules(trace, module)
    placed = []
    for key, made in launch_map.work.items():
        launch = launch_map.launches.get(key)
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
    controls += (modules.nested(launch_map.launches.values()),)
    controls += (balanced(launch_map), _recorded(launch_map, modules))
    return Attribution(Method.EAGER, calls, controls)
