"""Computes the verdict: PASS requires every stage to have run and passed."""

from __future__ import annotations

from collections.abc import Iterable

from gatekit.report.schema import StageReport, StageState
from overlaykit.core.errors import Exit

EXITS = {
    StageState.PASS: Exit.DONE,
    StageState.FAIL: Exit.FAILS,
    StageState.INCONCLUSIVE: Exit.INVALID,
    StageState.ERROR: Exit.ENVIRONMENT,
}
# The worst state decides. A stage that did not run makes the verdict inconclusive.
_WORST_FIRST = (StageState.FAIL, StageState.ERROR, StageState.INCONCLUSIVE)


def verdict(stages: Iterable[StageReport]) -> tuple[StageState, tuple[str, ...]]:
    """The verdict, with the reasons why it is not a pass; a pass has none."""
    stages = tuple(stages)
    open_ones = [stage for stage in stages if stage.state is not StageState.PASS]
    reasons = tuple(f"{s.name}: {s.state.value}: {s.reason}" for s in open_ones)
    if not stages:
        return StageState.INCONCLUSIVE, ("there are no stages",)
    if not open_ones:
        models = {s.model: s.name for s in stages if s.model}
        if len(models) > 1:
            names = ", ".join(f"{name} {model}" for model, name in models.items())
            return StageState.INCONCLUSIVE, (
                f"stages served different models: {names}",
            )
        stand_ins = [s for s in stages if s.stands_in]
        if not stand_ins:
            return StageState.PASS, ()
        reasons = tuple(
            f"{s.name}: ran on a stand-in: {s.stands_in}" for s in stand_ins
        )
        return StageState.INCONCLUSIVE, reasons
    for state in _WORST_FIRST:
        if any(stage.state is state for stage in open_ones):
            return state, reasons
    return StageState.INCONCLUSIVE, reasons
