"""Lands hunks in functions that moved to another file or have a new name.

Git follows renamed files, but not functions. So only the function is merged: as pinned,
as upstream has it now, and as the hunk leaves it. A hunk of module lines goes where its
context occurs exactly once.
"""

from __future__ import annotations

from dataclasses import replace

from overlaykit.planning.placement import MergeStep, check_landing
from overlaykit.planning.plan import HunkPlan, State
from overlaykit.repository.merge import MergeStore
from overlaykit.series.lock import LockedHunk
from overlaykit.series.patches import Hunk, occurrences, split_lines
from overlaykit.series.scopes import MODULE, ScopeMap, map_scopes

_FUNCTION = "function.py"


def land_moved(
    step: MergeStep, where: str, scope: str, data: bytes, store: MergeStore
) -> tuple[HunkPlan, bytes, bytes | None]:
    """Merge a hunk into ``scope`` of ``where``.

    Returns the plan, the resulting contents and, after a conflict, the contents with
    conflict markers.
    """
    if scope == MODULE:
        return *_land_lines(step, where, data), None
    spans = [
        _span(map_scopes(contents), name)
        for contents, name in (
            (step.old, step.locked.scope),
            (step.new, step.locked.scope),
            (data, scope),
        )
    ]
    if any(span is None for span in spans):
        return step.plan(State.GONE, f"{scope} is not in {where}"), data, None
    contents = (step.old, step.new, data)
    base, ours, theirs = (
        split_lines(text)[span.start : span.stop]
        for text, span in zip(contents, spans, strict=True)
        if span is not None
    )
    shift = _indent(theirs) - _indent(base)
    merged = store.merge(
        {_FUNCTION: b"".join(_shifted(base, shift))},
        {_FUNCTION: b"".join(theirs)},
        {_FUNCTION: b"".join(_shifted(ours, shift))},
    )
    span = spans[2]
    assert span is not None
    lines = split_lines(data)
    after = b"".join(
        [*lines[: span.start], merged.files[_FUNCTION], *lines[span.stop :]]
    )
    if merged.conflicts:
        detail = f"{scope} of {where} has other changes to these lines"
        return step.plan(State.CONFLICT, detail, line=span.start + 1), data, after
    there = _moved_step(step, scope, shift)
    if after == data:
        back = store.merge(
            {_FUNCTION: b"".join(_shifted(ours, shift))},
            {_FUNCTION: b"".join(theirs)},
            {_FUNCTION: b"".join(_shifted(base, shift))},
        )
        without = b"".join(
            [*lines[: span.start], back.files[_FUNCTION], *lines[span.stop :]]
        )
        if not back.conflicts and without != data:
            plan = _reversed(there, where, data, without)
        else:
            plan = step.plan(State.SUPERSEDED, "the merge changes nothing")
        return replace(plan, scope=step.locked.scope), data, None
    plan = check_landing(there, where, data, after)
    plan = replace(plan, scope=scope)
    return plan, after if plan.state.lands else data, None


def _reversed(step: MergeStep, where: str, data: bytes, without: bytes) -> HunkPlan:
    """The plan for a hunk without effect: upstreamed only if reverting it lands."""
    plan = check_landing(step.undone(), where, data, without)
    if plan.state.lands:
        return step.plan(State.UPSTREAMED, "the tree already has these lines")
    if plan.state is State.AMBIGUOUS:
        return plan
    return step.plan(State.SUPERSEDED, "the merge changes nothing")


def _land_lines(step: MergeStep, where: str, data: bytes) -> tuple[HunkPlan, bytes]:
    """Land a hunk of module lines at the one place where its context occurs."""
    lines = split_lines(data)
    places = occurrences(lines, step.hunk.old)
    if len(places) != 1:
        what = f"at lines {places}" if places else "nowhere"
        detail = f"its context is {what} in {where}"
        return step.plan(State.CONFLICT, detail), data
    at = places[0] - 1
    after = b"".join([*lines[:at], *step.hunk.new, *lines[at + len(step.hunk.old) :]])
    plan = check_landing(replace(step, was=MODULE), where, data, after)
    return plan, after if plan.state.lands else data


def _moved_step(step: MergeStep, scope: str, shift: int) -> MergeStep:
    """The step, moved to the function's new place."""
    lines = tuple((tag, _shift(line, shift)) for tag, line in step.hunk.lines)
    hunk = Hunk(
        step.hunk.path,
        step.hunk.number,
        step.hunk.at,
        step.hunk.old_start,
        step.hunk.new_start,
        lines,
    )
    locked = LockedHunk(scope, step.locked.sites)
    return replace(step, hunk=hunk, locked=locked, was=step.locked.scope, deeper=shift)


def _span(scopes: ScopeMap | None, scope: str) -> range | None:
    """The lines of a definition, counted from 0; None if the scope does not exist."""
    if scopes is None or scope not in scopes:
        return None
    inside = [
        number
        for number, name in enumerate(scopes.names)
        if name == scope or name.startswith(f"{scope}.")
    ]
    after = scopes.starts[inside[-1] + 1]
    return range(scopes.starts[inside[0]] - 1, after - 1)


def _indent(lines: list[bytes]) -> int:
    return len(lines[0]) - len(lines[0].lstrip(b" "))


def _shifted(lines: list[bytes], by: int) -> list[bytes]:
    return [_shift(line, by) for line in lines]


def _shift(line: bytes, by: int) -> bytes:
    if not line.strip():
        return line
    return b" " * by + line if by >= 0 else line.removeprefix(b" " * -by)
