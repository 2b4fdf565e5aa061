"""The verdict on one trace: read it, attribute kernels, check controls and claims."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gatekit.records.checks import Check, Verdict, equal, none_of
from gatekit.traces import comparison
from gatekit.traces.attribution import (
    Attribution,
    Call,
    attribute_eager,
    map_launches,
    steps_named,
    undisturbed,
)
from gatekit.traces.events import Trace
from gatekit.traces.figures import (
    Figures,
    KernelFigures,
    Layer,
    by_layer,
    call_controls,
    figures,
    kernel_figures,
    total,
    unknown_before_gemm,
)
from gatekit.traces.kernels import kind_of
from gatekit.traces.reading import read_trace
from gatekit.traces.replays import attribute_replays, read_capture, segment_replays

_RANK = re.compile(r"TP-?(\d+)", re.IGNORECASE)
# With these in the name, the TP number is not the process's rank.
_OTHER_RANKS = re.compile(r"(?<![A-Z])(?:DP|PP)-?\d", re.IGNORECASE)


@dataclass(frozen=True)
class Requirement:
    """The expected contents of a trace. ``layers`` is the number of modules per step,
    ``copies`` the number of copies in each."""

    module: str
    layers: int
    copies: int
    gemms: int | None = None


@dataclass(frozen=True)
class AnalysedTrace:
    """A trace with its kernels attributed to modules."""

    trace: Trace
    attribution: Attribution
    layers: tuple[Layer, ...]
    kernels: tuple[KernelFigures, ...]
    totals: Figures
    controls: tuple[Check, ...]

    @property
    def calls(self) -> tuple[Call, ...]:
        return self.attribution.calls

    @property
    def copies_elsewhere(self) -> float:
        """Copies of any name outside the module, per call of the module."""
        copies = sum(kind_of(work.name).is_copy for work in self.trace.work)
        return (copies - self.totals.copies - self.totals.other_copies) / max(
            len(self.calls), 1
        )


@dataclass(frozen=True)
class Assessment:
    """The verdict, and the checks and figures behind it."""

    verdict: Verdict
    analysed: AnalysedTrace
    baseline: AnalysedTrace | None
    controls: tuple[Check, ...]
    claims: tuple[Check, ...]
    changes: tuple[comparison.KernelDelta, ...]


def rank_named(path: str) -> int | None:
    """The rank in a file's name, if it has one."""
    name = Path(path).name
    match = _RANK.search(name)
    return int(match[1]) if match and not _OTHER_RANKS.search(name) else None


def analyse(
    path: Path, required: Requirement, captures: Sequence[Path]
) -> AnalysedTrace:
    """Read one file and attribute its kernels by the method that applies."""
    trace = read_trace(path)
    launch_map = map_launches(trace)
    controls = [*_one_rank(trace), *launch_map.controls]
    if not launch_map.graphs:
        attribution = attribute_eager(
            trace, launch_map, required.module, required.layers
        )
    elif captures:
        sources = [read_trace(capture) for capture in captures]
        read = [(s, read_capture(s, required.module, required.layers)) for s in sources]
        controls += [
            check
            for source in sources
            for check in _same_origin(trace, source, "capture")
        ]
        attribution = attribute_replays(trace, launch_map, read, required.module)
    else:
        attribution = segment_replays(trace, launch_map, required.layers)
    calls = attribution.calls
    figured = [(call, figures(call)) for call in calls]
    controls += [*attribution.controls, *call_controls(figured)]
    controls.append(undisturbed(trace, calls))
    if required.gemms is not None:
        found = {one.gemms for _, one in figured}
        listed = ", ".join(map(str, sorted(found)))
        controls.append(equal("GEMMs per layer", str(required.gemms), listed))
    sums = total([one for _, one in figured])
    return AnalysedTrace(
        trace, attribution, by_layer(figured), kernel_figures(calls), sums,
        tuple(controls),
    )  # fmt: skip


def _one_rank(trace: Trace) -> tuple[Check, ...]:
    devices = {work.device for work in trace.work}
    processes = {launch.thread[0] for launch in trace.launches}
    named = rank_named(trace.path)
    checks = [
        Check(
            "one rank per file",
            "1 GPU, 1 process",
            f"{len(devices)} GPUs, {len(processes)} processes",
            len(devices) <= 1 and len(processes) <= 1,
        )
    ]
    if trace.rank is not None and trace.world is not None:
        below, found = f"below {trace.world}", str(trace.rank)
        holds = trace.rank < trace.world
        checks.append(Check("the rank is below the world size", below, found, holds))
    if named is not None and trace.rank is not None:
        checks.append(equal("the rank in the file's name", named, trace.rank))
    return tuple(checks)


def _same_origin(trace: Trace, other: Trace, what: str) -> list[Check]:
    """Two compared files must be from the same rank and kind of GPU."""
    return [
        equal(f"rank, as in the {what}", _rank(other), _rank(trace)),
        equal(f"world size, as in the {what}", other.world, trace.world),
        equal(f"GPU, as in the {what}", other.gpu, trace.gpu),
    ]


def _rank(trace: Trace) -> int | None:
    return trace.rank if trace.rank is not None else rank_named(trace.path)


def decide(
    one: AnalysedTrace, baseline: AnalysedTrace | None, required: Requirement
) -> Assessment:
    """If a control does not hold, the verdict is invalid, whatever the claims show."""
    wrong = (
        f"layer {call.layer}, step {call.step}: {found}"
        for call in one.calls
        if (found := figures(call).copies) != required.copies
    )
    claims = [none_of(
        f"{required.copies} copies in every {required.module}",
        "layer with a different number", wrong,
    )]  # fmt: skip
    controls = list(one.controls)
    changes: tuple[comparison.KernelDelta, ...] = ()
    if baseline is None:
        controls.append(unknown_before_gemm(one.calls))
    else:
        controls += [
            Check(f"baseline: {c.name}", c.expected, c.found, c.holds)
            for c in baseline.controls
        ]
        controls += _same_origin(one.trace, baseline.trace, "baseline")
        steps = (set(steps_named(baseline.trace)), set(steps_named(one.trace)))
        controls.append(equal("steps, as in the baseline", *map(_listed, steps)))
        controls += comparison.load_controls(baseline.layers, one.layers)
        claims += comparison.claims(baseline.layers, one.layers)
        claims.append(comparison.rest_is_the_same(baseline.calls, one.calls))
        elsewhere = baseline.copies_elsewhere, one.copies_elsewhere
        claims.append(comparison.no_copies_moved(*elsewhere))
        counts = (len(baseline.calls), len(one.calls))
        changes = comparison.changes(baseline.kernels, one.kernels, counts)
    verdict = _verdict(controls, claims)
    return Assessment(verdict, one, baseline, tuple(controls), tuple(claims), changes)


def _verdict(controls: Sequence[Check], claims: Sequence[Check]) -> Verdict:
    """A trace without claims cannot pass."""
    if not claims or not all(control.holds for control in controls):
        return Verdict.INVALID
    return Verdict.PASS if all(claim.holds for claim in claims) else Verdict.FAIL


def _listed(names: set[str]) -> str:
    return ", ".join(sorted(names)) or "not annotated"
