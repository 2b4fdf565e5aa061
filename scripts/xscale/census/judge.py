"""Derive a site's state from all paths of its scale."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from xscale.census.flow import Flow, TooManyPaths, follow_parameter
from xscale.census.modules import FunctionNode, Module, Modules
from xscale.census.pairing import SCALE_PARAMETER
from xscale.census.path_records import Use, local_names
from xscale.census.values import Tensor
from xscale.sites import GEMM, SiteState

_LAYOUTS = {
    "row-major": (False, False),
    "transposed behind row-major strides": (True, False),
    "transposed behind honest strides": (True, True),
}
"""The layouts that a producer may pass on: (bytes by columns, strides by columns)."""


def producer_state(flow: Flow) -> tuple[SiteState, str]:
    """The producer's state, by the paths that request a transposed scale."""
    asked = [use for use in flow.uses if use.transposed is not False]
    if not flow.uses or (flow.asked and not asked):
        return SiteState.UNKNOWN, "where its scale goes is not seen"
    to = ", ".join(sorted({use.by for use in asked or flow.uses}))
    if not asked and any(use.marked is not False for use in flow.uses):
        return SiteState.UNKNOWN, "may be marked, though not asked for transposed"
    if not asked and not any(use.copied for use in flow.uses):
        return SiteState.ROW_MAJOR, f"row-major scale given to {to}"
    if any(use.transposed is None for use in asked):
        return SiteState.UNKNOWN, "whether its scale is transposed is not seen"
    if any(use.copied for use in asked):
        return SiteState.UNKNOWN, "asked for transposed, and transposed again by a copy"
    transposed = asked or [use for use in flow.uses if use.copied]
    if any(not use.columns or use.honest is None for use in transposed):
        return SiteState.UNKNOWN, f"in which order its bytes go to {to} is not seen"
    strides = {use.honest for use in transposed}
    behind = f"behind {_strides(strides)} strides"
    if not asked:
        state = SiteState.COPIED if strides == {True} else SiteState.UNMARKED
        return state, f"the caller transposes the scale by a copy, for {to}, {behind}"
    marks = {use.marked for use in asked}
    if marks == {True}:
        return SiteState.MARKED, f"transposed scale, {behind}, marked and given to {to}"
    if marks == {False}:
        state = SiteState.HONEST if strides == {True} else SiteState.UNMARKED
        return state, f"transposed scale, {behind}, given to {to} without the marker"
    return SiteState.UNKNOWN, f"marked on some ways to {to}, not on all, or not seen"


def own_state(flow: Flow) -> tuple[SiteState | None, str]:
    """The state of a scale made in the function that calls CK's GEMM; None if each GEMM
    there reads it correctly."""
    by_bytes = {use.columns for use in flow.uses if use.by == GEMM}
    by_strides = {use.honest for use in flow.uses if use.by != GEMM}
    if by_bytes == {True} and by_strides <= {True}:
        return None, "right"
    what = f"CK {_right(by_bytes)}, others {_right(by_strides or {True})}"
    wrong = False in by_bytes or False in by_strides
    return (SiteState.MISREAD if wrong else SiteState.UNKNOWN), what


def _strides(honest: Collection[bool | None]) -> str:
    if len(honest) > 1:
        return "row-major or honest (as AITER's release has it)"
    return "honest" if True in honest else "row-major"


def consumer_state(
    modules: Modules, module: Module, function: FunctionNode
) -> tuple[SiteState, str]:
    """The consumer's state, by what both GEMMs get for every layout."""
    declared = function.args
    names = {a.arg for a in (*declared.args, *declared.kwonlyargs)}
    if SCALE_PARAMETER not in names:
        return SiteState.UNKNOWN, f"has no parameter {SCALE_PARAMETER}"

    def uses(columns: bool, by_columns: bool, marked: bool) -> frozenset[Use]:
        given = Tensor(SCALE_PARAMETER, True, None, columns, by_columns, marked)
        flow = follow_parameter(modules, module, function, SCALE_PARAMETER, given)
        return flow.uses

    try:
        unmarked = {name: uses(*how, False) for name, how in _LAYOUTS.items()}
        marked = _copied(use for use in uses(True, True, True) if use.by == GEMM)
    except TooManyPaths:
        return SiteState.UNKNOWN, "branches too often to be followed"
    local = local_names(function)
    routes = {name: _routes(found, local) for name, found in unmarked.items()}
    to_ck = {name: _copied(route[0]) for name, route in routes.items()}
    results = "; ".join(f"{name}: {_read_by_each(*routes[name])}" for name in _LAYOUTS)
    (row_major, *_), triton = to_ck.values(), routes["row-major"][1]
    if len(set(map(frozenset, to_ck.values()))) > 1:
        return SiteState.UNKNOWN, f"does not treat all scales alike ({results})"
    if (row_major, marked) == ({True}, {False}):
        return SiteState.COPIES_UNMARKED, (
            f"hands a marked scale to CK's GEMM without a copy; unmarked, {results}"
        )
    if (row_major, marked) == ({True}, {True}):
        if any(use.honest is False for use in triton):
            return SiteState.NEEDS_HONEST, (
                "copies by the strides before CK's GEMM, takes the bytes for "
                f"transposed before Triton's ({results})"
            )
        return SiteState.COPIES_ALL, f"copies each scale before CK's GEMM ({results})"
    if (row_major, marked) == ({False}, {False}):
        return (
            SiteState.ASSUMES,
            f"hands each scale to CK's GEMM without a copy ({results})",
        )
    return SiteState.UNKNOWN, "its scale is not seen to reach CK's GEMM one way only"


def _copied(uses: Iterable[Use]) -> set[bool]:
    return {use.copied for use in uses}


def _routes(
    uses: Collection[Use], local: Collection[str]
) -> tuple[list[Use], list[Use]]:
    """The uses by CK's GEMM, and those by Triton's on the same machine.

    The module-level names that CK's route depends on identify the machine. On other
    machines, the producers write another layout as well.
    """
    to_ck = [use for use in uses if use.by == GEMM]
    always = frozenset.intersection(*(use.known for use in to_ck)) if to_ck else ()
    machine = {
        (key, truth)
        for key, truth in always
        if all(map(str.isidentifier, key.split("."))) and key.split(".")[0] not in local
    }
    triton = [use for use in uses if "triton" in use.by and machine <= use.known]
    return to_ck, triton


def _read_by_each(to_ck: Collection[Use], triton: Collection[Use]) -> str:
    """Whether each GEMM reads right values: CK's by bytes, Triton's by strides."""
    by_bytes, by_strides = ({u.columns for u in to_ck}, {u.honest for u in triton})
    return f"CK {_right(by_bytes)}, Triton {_right(by_strides)}"


def _right(found: Collection[bool | None]) -> str:
    if found == {True}:
        return "right"
    return "wrong" if found == {False} else "not seen"
