"""The result of one trace, as ``--json`` prints it."""

from __future__ import annotations

import msgspec

from gatekit.records.checks import Check, Verdict
from gatekit.traces.attribution import Method
from gatekit.traces.comparison import KernelDelta
from gatekit.traces.figures import Figures, KernelFigures, Layer
from gatekit.traces.timeline import typical
from gatekit.traces.verdicts import AnalysedTrace, Assessment, Requirement
from overlaykit.cli import Result


class KernelRun(msgspec.Struct, frozen=True):
    """One kernel of a call."""

    name: str
    time_ns: int


class Side(Result, frozen=True, kw_only=True):
    """The figures of one trace. Where kernels are not attributed, the figures are those
    of stretches, not of modules. ``typical`` lists the kernels of the call that the
    timeline draws, in order."""

    method: str
    gpu: str
    rank: int | None
    layout: str
    attributed: bool
    replays: int
    replayed: int
    calls: int
    totals: Figures
    layers: tuple[Layer, ...]
    kernels: tuple[KernelFigures, ...]
    typical: tuple[KernelRun, ...]


class TraceResult(Result, frozen=True, kw_only=True):
    """The verdict on one trace, the checks behind it, and the figures before and
    after."""

    verdict: Verdict
    controls: tuple[Check, ...]
    claims: tuple[Check, ...]
    after: Side
    before: Side | None
    changes: tuple[KernelDelta, ...]


def result_of(assessment: Assessment, required: Requirement) -> TraceResult:
    baseline = assessment.baseline
    return TraceResult(
        target=required.module,
        tree=assessment.analysed.trace.path,
        outcome=assessment.verdict.value,
        verdict=assessment.verdict,
        controls=assessment.controls,
        claims=assessment.claims,
        after=_side(assessment.analysed, required.module),
        before=_side(baseline, required.module) if baseline else None,
        changes=assessment.changes,
    )


def _side(one: AnalysedTrace, module: str) -> Side:
    attribution, trace = one.attribution, one.trace
    call = typical(one)
    return Side(
        target=module,
        tree=trace.path,
        outcome=attribution.method.value,
        method=attribution.method.value,
        gpu=trace.gpu,
        rank=trace.rank,
        layout=trace.layout,
        attributed=attribution.method is not Method.UNATTRIBUTED,
        replays=attribution.replays,
        replayed=attribution.replayed,
        calls=len(one.calls),
        totals=one.totals,
        layers=one.layers,
        kernels=one.kernels,
        typical=tuple(KernelRun(w.name, w.duration) for w in call.work) if call else (),
    )
