"""From the stages to one verdict: a stage that did not run never makes a pass."""

from __future__ import annotations

from collections.abc import Iterable

from gatekit.report.schema import StageReport, State
from overlaykit.core.errors import Exit

EXITS = {
    State.PASS: Exit.DONE,
    State.FAIL: Exit.FAILS,
    State.INCONCLUSIVE: Exit.INVALID,
    State.ERROR: Exit.ENVIRONMENT,
}
# The worst that was met decides; what merely did not run leaves the question open.
_WORST_FIRST = (State.FAIL, State.ERROR, State.INCONCLUSIVE)


def verdict(stages: Iterable[StageReport]) -> tuple[State, tuple[str, ...]]:
    """The whole's state, and why it is not a pass; no reasons where it is."""
    stages = tuple(stages)
    open_ones = [stage for stage in stages if stage.state is not State.PASS]
    reasons = tuple(f"{s.name}: {s.state.value}: {s.reason}" for s in open_ones)
    if not stages:
        return State.INCONCLUSIVE, ("there are no stages",)
    if not open_ones:
        models = {s.model: s.name for s in stages if s.model}
        if len(models) > 1:
            told = ", ".join(f"{name} {model}" for model, name in models.items())
            return State.INCONCLUSIVE, (f"stages served different models: {told}",)
        stand_ins = [s for s in stages if s.stands_in]
        if not stand_ins:
            return State.PASS, ()
        reasons = tuple(
            f"{s.name}: ran on a stand-in: {s.stands_in}" for s in stand_ins
        )
        return State.INCONCLUSIVE, reasons
    for state in _WORST_FIRST:
        if any(stage.state is state for stage in open_ones):
            return state, reasons
    return State.INCONCLUSIVE, reasons
