"""Attribute the kernels of replayed graphs to modules, through the graph's capture.

A replay is one launch outside every module, so its kernels alone do not show modules:
"no copies in attention" would be true of any replay. The capture's trace has every
launch with its module, although nothing ran. On CUDA, whose profiler does not name
captured kernels, the trace of the same step run eagerly takes its place.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from gatekit.records.checks import Check, equal, none_of
from gatekit.traces.attribution import (
    Attribution,
    Call,
    LaunchMap,
    Method,
    balanced,
    calls_of,
    map_launches,
)
from gatekit.traces.events import Launch, Span, Trace, Work
from gatekit.traces.kernels import (
    COPY,
    FILL,
    Kind,
    kind_of,
    plain,
    reads_scale,
    short,
    token,
)
from gatekit.traces.modules import Modules

_UNNAMED = "launch without its kernel's name"


@dataclass(frozen=True)
class Captured:
    """The launches of a graph, in order: what each runs, and its module call."""

    tokens: tuple[str, ...]
    spans: tuple[Span | None, ...]
    controls: tuple[Check, ...]

    def aligned(self, replayed: Sequence[str]) -> tuple[Span | None, ...] | None:
        """The module call of each replayed kernel, or None if the replay differs from
        the capture. Fills of 0 bytes may be missing in the replay."""
        if self.tokens == tuple(replayed):
            return self.spans
        pairs = zip(self.tokens, self.spans, strict=True)
        kept = [(one, span) for one, span in pairs if one != FILL]
        if [one for one, _ in kept] == list(replayed):
            return tuple(span for _, span in kept)
        return None


def read_capture(capture: Trace, module: str, layers: int) -> Captured:
    """The recorded launches of a capture, or the launches of a step run eagerly.

    Several eager steps must have equal launches; the first one is used.
    """
    launch_map = map_launches(capture)
    modules = Modules(capture, module)
    launches = sorted(launch_map.launches.values(), key=lambda launch: launch.start)
    recorded = [
        one
        for one in launches
        if one.correlation not in launch_map.work and not one.empty
    ]
    steps = 1
    if all(one.is_fill for one in recorded):
        # All other launches ran, so this is an eager step; these are fills of 0 bytes.
        ran = [one for one in launches if one.correlation in launch_map.work]
        recorded = _within_modules(ran, capture)
        steps = max(modules.counts.values(), default=1)
    tokens = tuple(_recorded_token(one, launch_map) for one in recorded)
    size = -(-len(tokens) // steps)
    each = {tokens[at : at + size] for at in range(0, len(tokens), size or 1)}
    recorded, tokens = recorded[:size], tokens[:size]
    controls = (
        *launch_map.controls,
        *modules.controls(module, layers, capture),
        modules.nested(recorded),
        equal("calls of each layer", str(steps), _listed(modules.counts.values())),
        equal("eager steps that differ", 0, len(each) - 1 if each else 0),
        none_of(
            "captured launches are named",
            _UNNAMED,
            (one for one in tokens if one == _UNNAMED),
        ),
    )
    spans = tuple(modules.around(one) for one in recorded)
    return Captured(tokens, spans, tuple(_of_capture(one) for one in controls))


def _listed(values: Iterable[int]) -> str:
    return ", ".join(map(str, sorted(set(values)))) or "none"


def _of_capture(check: Check) -> Check:
    name = f"capture: {check.name}"
    return Check(name, check.expected, check.found, check.holds)


def _within_modules(launches: Sequence[Launch], trace: Trace) -> list[Launch]:
    """The launches inside any module: a graph contains no others."""
    spans = [span for span in trace.spans if not span.annotation]
    ends: dict[object, list[tuple[int, int]]] = {}
    for span in sorted(spans, key=lambda span: span.start):
        line = ends.setdefault(span.thread, [])
        if not line or span.start >= line[-1][1]:
            line.append((span.start, span.end))
        else:
            line[-1] = line[-1][0], max(line[-1][1], span.end)
    return [
        one
        for one in launches
        if any(_meets(one, a, b) for a, b in ends.get(one.thread, ()))
    ]


def _meets(launch: Launch, start: int, end: int) -> bool:
    """Whether the launch and the interval overlap, nested or not."""
    if launch.start == launch.end:
        return start <= launch.start <= end
    return launch.start < end and start < launch.end


def _recorded_token(launch: Launch, launch_map: LaunchMap) -> str:
    ran = launch_map.work.get(launch.correlation)
    if ran:
        return token(ran[0])
    if not launch.is_kernel:
        return FILL if launch.is_fill else COPY
    return plain(launch.kernel) or _UNNAMED


def attribute_replays(
    trace: Trace,
    launch_map: LaunchMap,
    captures: Sequence[tuple[Trace, Captured]],
    module: str,
) -> Attribution:
    """Method B: every replay must match one capture, launch by launch."""
    placed: list[tuple[tuple[int, int], Work]] = []
    misaligned: list[str] = []
    used: dict[str, Captured] = {}
    replays = [launch_map.replay(graph) for graph in launch_map.graphs]
    for step, replay in enumerate(replays):
        tokens = tuple(token(work) for work in replay)
        for source, captured in captures:
            if (aligned := captured.aligned(tokens)) is not None:
                used[source.path] = captured
                spans = zip(aligned, replay, strict=True)
                placed += [
                    ((span.instance, step), work) for span, work in spans if span
                ]
                break
        else:
            wanted = captures[0][1].tokens
            misaligned.append(f"replay {step}: {_difference(wanted, tokens)}")
    outside = Modules(trace, module)
    consulted = used or {source.path: captured for source, captured in captures}
    controls = (
        none_of("replays aligned with the capture", "misaligned replay", misaligned),
        balanced(launch_map),
        equal(f"calls of {module} outside of graphs", 0, len(outside.spans)),
        *(check for captured in consulted.values() for check in captured.controls),
    )
    calls = calls_of(placed)
    replayed = sum(map(len, replays))
    return Attribution(Method.CAPTURE, calls, controls, len(replays), replayed)


def _difference(expected: Sequence[str], found: Sequence[str]) -> str:
    for at, (one, other) in enumerate(zip(expected, found, strict=False)):
        if one != other:
            return f"kernel {at} is {short(other)}, captured {short(one)}"
    return f"{len(found)} kernels, captured {len(expected)}"


def segment_replays(trace: Trace, launch_map: LaunchMap, layers: int) -> Attribution:
    """Method C: split replays at an anchor kernel into one stretch per layer. Which
    module a kernel belongs to is unknown."""
    replays = [launch_map.replay(graph) for graph in launch_map.graphs]
    calls: list[Call] = []
    anchors: list[str] = []
    irregular: list[str] = []
    for step, replay in enumerate(replays):
        anchor = _anchor(replay, layers)
        if anchor is None:
            irregular.append(f"replay {step} has no kernel that runs {layers} times")
            continue
        anchors.append(short(anchor))
        pieces = _stretches(replay, anchor)
        if not pieces:
            irregular.append(f"replay {step} does not repeat {layers} times")
        calls += [Call(layer, step, piece) for layer, piece in enumerate(pieces)]
    cut = ", ".join(dict.fromkeys(anchors)) or "none"
    controls = (
        Check(
            "kernels belong to modules",
            "every kernel in a module",
            f"replayed kernels belong to no module; split at {cut}",
            False,
        ),
        none_of("replays are regular", "irregular replay", irregular),
        balanced(launch_map),
    )
    replayed = sum(map(len, replays))
    return Attribution(
        Method.UNATTRIBUTED, tuple(calls), controls, len(replays), replayed
    )


def _stretches(replay: Sequence[Work], anchor: str) -> list[tuple[Work, ...]]:
    """Split the replay into equal stretches, one per run of the anchor. The anchor's
    position in a stretch is the first that makes all stretches complete and equal."""
    tokens = [token(work) for work in replay]
    runs = [at for at, work in enumerate(replay) if work.name == anchor]
    length = runs[1] - runs[0] if len(runs) > 1 else len(replay)
    for shift in range(length):
        starts = [at - shift for at in runs]
        if starts[0] < 0 or starts[-1] + length > len(replay):
            continue
        if len({tuple(tokens[at : at + length]) for at in starts}) == 1:
            return [tuple(replay[at : at + length]) for at in starts]
    return []


def _anchor(replay: Sequence[Work], layers: int) -> str | None:
    """A kernel that runs once per layer, preferably attention, then a block-scale
    GEMM."""
    counts = Counter(work.name for work in replay)
    once = [name for name, count in counts.items() if count == layers]
    attention = [name for name in once if kind_of(name) is Kind.ATTENTION]
    scaled = [name for name in once if reads_scale(name)]
    return next(iter([*attention, *scaled, *once]), None)
