"""The timeline of one layer before and after, drawn by the trace check's own code from
the kernels in its report."""

from __future__ import annotations

from gatekit.records.checks import Verdict
from gatekit.report.documents import Side, Traced
from gatekit.report.section import Drawing
from gatekit.traces.attribution import Attribution, Call, Method
from gatekit.traces.events import Trace, Work
from gatekit.traces.figures import Figures, Layer
from gatekit.traces.timeline import timeline
from gatekit.traces.verdicts import AnalysedTrace, Assessment


def one_layer(one: Traced) -> tuple[tuple[Drawing, ...], tuple[str, ...]]:
    """The drawing, or why there is none."""
    if one.sides is None or not all(side.typical for side in one.sides):
        return (), ("No timeline: the traces' report lists no layer's kernels.",)
    try:
        before, after = (_examined(one.tree, side) for side in one.sides)
    except ValueError as error:
        return (), (f"No timeline: {error}.",)
    drawn = timeline(Assessment(Verdict(one.verdict), after, before, (), (), ()))
    layer = after.calls[0].layer
    caption = f"Layer {layer}, kernel by kernel, before and after"
    return (Drawing(caption, drawn, wide=True),), ()


def _examined(path: str, side: Side) -> AnalysedTrace:
    """The parts of a trace that are drawn. Raises ValueError for an unknown method."""
    nothing = Figures(0, 0, 0, 0, 0, 0, 0)
    layers = tuple(Layer(layer.layer, 1, nothing) for layer in side.layers)
    work = tuple(
        Work(kernel.name, "kernel", order, kernel.time_ns, 0, 0, order)
        for order, kernel in enumerate(side.typical)
    )
    call = Call(layers[len(layers) // 2].layer, 0, work)
    attribution = Attribution(Method(side.method), (call,), ())
    trace = Trace(path, "", 0, side.gpu, side.rank, None, [], [], [])
    return AnalysedTrace(trace, attribution, layers, (), nothing, ())
