"""What the paths of a scale, taken together, say of a site."""

from __future__ import annotations

from collections.abc import Collection

from contract.census.flow import Flow, TooManyPaths, follow_parameter
from contract.census.interpreter import Use
from contract.census.modules import FunctionNode, Module, Modules
from contract.sites import GEMM, State

_SCALE_PARAMETER = "input_scale"


def producer_state(flow: Flow) -> tuple[State, str]:
    """The state, judged by the paths on which a transposed scale is asked for."""
    asked = [use for use in flow.uses if use.transposed is not False]
    if not flow.uses or (flow.asked and not asked):
        return State.UNKNOWN, "where its scale goes is not seen"
    to = _receivers(asked or flow.uses)
    if not asked:
        if any(use.marked is not False for use in flow.uses):
            return State.UNKNOWN, "may be marked, though not asked for transposed"
        if any(use.copied for use in flow.uses):
            return State.COPIED, f"the caller transposes the scale by a copy, for {to}"
        return State.ROW_MAJOR, f"row-major scale given to {to}"
    if any(use.transposed is None for use in asked):
        return State.UNKNOWN, "whether its scale is transposed is not seen"
    if any(use.copied for use in asked):
        return State.UNKNOWN, "asked for transposed, and transposed again by a copy"
    marks = {use.marked for use in asked}
    if marks == {True}:
        return State.MARKED, f"transposed scale marked and given to {to}"
    if marks == {False}:
        return State.UNMARKED, f"transposed scale given to {to} without the marker"
    return State.UNKNOWN, f"marked on some ways to {to}, not on all, or not seen"


def _receivers(uses: Collection[Use]) -> str:
    return ", ".join(sorted({use.by for use in uses}))


def consumer_state(
    modules: Modules, module: Module, function: FunctionNode
) -> tuple[State, str]:
    """The state, judged by what CK's GEMM gets for a marked and an unmarked scale."""
    declared = function.args
    names = {a.arg for a in (*declared.args, *declared.kwonlyargs)}
    if _SCALE_PARAMETER not in names:
        return State.UNKNOWN, f"has no parameter {_SCALE_PARAMETER}"
    try:
        unmarked, marked = (
            {
                use.copied
                for use in follow_parameter(
                    modules, module, function, _SCALE_PARAMETER, marker
                ).uses
                if use.by == GEMM
            }
            for marker in (False, True)
        )
    except TooManyPaths:
        return State.UNKNOWN, "branches too often to be followed"
    if (unmarked, marked) == ({True}, {True}):
        return State.COPIES_ALL, "transposes each scale by a copy before CK's GEMM"
    if (unmarked, marked) == ({True}, {False}):
        return State.COPIES_UNMARKED, "hands a marked scale to CK's GEMM without a copy"
    if (unmarked, marked) == ({False}, {False}):
        return State.ASSUMES, "hands each scale to CK's GEMM without a copy"
    return State.UNKNOWN, "its scale is not seen to reach CK's GEMM one way only"
