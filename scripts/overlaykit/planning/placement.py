"""Checks that a merge changed exactly the hunk's lines, in the hunk's own place.

Each objection is a way in which real tools put an edit in the wrong place; see
``docs/evidence/lookalikes.md``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from difflib import SequenceMatcher

from overlaykit.planning.context import doubtful_place, side_of
from overlaykit.planning.guards import guards_of
from overlaykit.planning.namesakes import changed_meaning, renamed_twin
from overlaykit.planning.plan import HunkPlan, State
from overlaykit.series.lock import LockedHunk
from overlaykit.series.patches import Change, Hunk, Patch, split_lines
from overlaykit.series.scopes import MODULE, ScopeMap, map_scopes


@dataclass(frozen=True)
class MergeStep:
    """The merge of one hunk: its pinned file before (``old``) and after it (``new``).

    ``whole`` is the file with the whole series. If lines moved to another file, or a
    function has a new name, ``was`` is their old scope and ``deeper`` the increase in
    indentation.
    """

    patch: Patch
    hunk: Hunk
    locked: LockedHunk
    path: str
    old: bytes
    new: bytes
    whole: bytes
    was: str | None = None
    deeper: int = 0

    def plan(self, state: State, detail: str = "", **more: object) -> HunkPlan:
        made = HunkPlan(
            self.patch.name,
            self.hunk.number,
            self.path,
            self.locked.scope,
            self.locked.sites,
            state,
            detail=detail,
        )
        return replace(made, **more)  # type: ignore[arg-type]

    def undone(self) -> MergeStep:
        """The step that reverts this one."""
        return replace(self, hunk=self.hunk.reversed(), old=self.new, new=self.old)

    def changes(self) -> list[Change]:
        """The changes of this step, found in the same way as those of a landing."""
        return changes_between(self.old, self.new)


def check_landing(step: MergeStep, path: str, before: bytes, after: bytes) -> HunkPlan:
    """Check that the merge changed the lines of this hunk, in its place."""
    old, new = map_scopes(before), map_scopes(after)
    if old is None or new is None:
        return step.plan(State.MISPLACED, f"{path} would not parse as Python")
    landed = changes_between(before, after)
    first = landed[0].new_line
    places = _places(step.hunk.old, before, old, step.locked.scope)
    try:
        for state, objection in _objections(step, before, after, landed, places):
            if objection:
                return step.plan(state, f"{path}:{first}: {objection}", line=first)
    except RecursionError:
        why = "is nested too deeply to look up its names"
        return step.plan(State.AMBIGUOUS, f"{path} {why}")
    shift = first - step.hunk.changes[0].new_line
    start = landed[0].old_line - step.hunk.changes[0].old_line + step.hunk.old_start
    state = State.OFFSET if shift else State.CLEAN
    if start not in places:
        state = State.MERGED
    if path != step.path:
        state = State.RENAMED
    detail = f"now in {path}" if path != step.path else ""
    return step.plan(state, detail, line=first, shift=shift)


def _objections(
    step: MergeStep,
    before: bytes,
    after: bytes,
    landed: list[Change],
    places: list[int],
) -> Iterator[tuple[State, str | None]]:
    """The objections to a landing, those about the scope's name first."""
    old, new = map_scopes(before), map_scopes(after)
    assert old is not None and new is not None
    scope = step.locked.scope
    yield State.AMBIGUOUS, changed_meaning(scope, step.old, before)
    yield State.MISPLACED, _other_scope(step, landed, old, new)
    yield State.AMBIGUOUS, _repeated_context(scope, places)
    yield State.MISPLACED, _other_lines(step, landed)
    yield State.MISPLACED, _other_conditions(step, before, after, old)
    yield State.MISPLACED, _already_added(step, before, old)
    yield State.AMBIGUOUS, _doubtful_place(step, before, old, landed)
    if step.was is None:
        yield State.AMBIGUOUS, renamed_twin(scope, step.hunk.old, step.old, before)


def _other_scope(
    step: MergeStep, landed: list[Change], old: ScopeMap, new: ScopeMap
) -> str | None:
    """Changed lines in another scope than the hunk's."""
    found = {
        scopes.at(start + i)
        for change in landed
        for scopes, start, lines in (
            (old, change.old_line, change.removed),
            (new, change.new_line, change.added),
        )
        for i in range(len(lines))
    }
    if found == {step.locked.scope}:
        return None
    where = ", ".join(sorted(found))
    return f"the merge would put it in {where}, not in {step.locked.scope}"


def _repeated_context(scope: str, places: list[int]) -> str | None:
    """The hunk's whole context occurs more than once."""
    if len(places) < 2:
        return None
    at = ", ".join(map(str, places))
    return f"{scope} contains this context {len(places)} times, at lines {at}"


def _doubtful_place(
    step: MergeStep, data: bytes, scopes: ScopeMap, landed: list[Change]
) -> str | None:
    """Another place in the scope may be the right one."""
    if step.was == MODULE:
        # These are module lines of another file, which have their own order.
        return None
    scope = step.locked.scope
    was = step.was or scope
    pinned, whole = (
        side_of(side, _scopes(side), was, step.deeper)
        for side in (step.old, step.whole)
    )
    found = side_of(data, scopes, scope)
    why = doubtful_place(pinned, step.changes(), whole, found, landed)
    return f"{scope} may have another place for it: {why}" if why else None


def _scopes(pinned: bytes) -> ScopeMap:
    """The scopes of a pinned file. It parses: the lock was made from it."""
    scopes = map_scopes(pinned)
    assert scopes is not None
    return scopes


def _other_lines(step: MergeStep, landed: list[Change]) -> str | None:
    if _net(landed) != _net(step.hunk.changes):
        return "the merge changes other lines than the hunk"
    return None


def changes_between(before: bytes, after: bytes) -> list[Change]:
    """The changed lines between two contents.

    Skips the common lines at both ends first, so that the search is as short as the
    change.
    """
    a, b = split_lines(before), split_lines(after)
    head = 0
    while head < min(len(a), len(b)) and a[head] == b[head]:
        head += 1
    tail = 0
    while tail < min(len(a), len(b)) - head and a[-1 - tail] == b[-1 - tail]:
        tail += 1
    a, b = a[head : len(a) - tail], b[head : len(b) - tail]
    return [
        Change(head + i1 + 1, head + j1 + 1, tuple(a[i1:i2]), tuple(b[j1:j2]))
        for tag, i1, i2, j1, j2 in SequenceMatcher(None, a, b, False).get_opcodes()
        if tag != "equal"
    ]


def _net(changes: Sequence[Change]) -> tuple[Counter[bytes], ...]:
    """Lines removed and lines added, no matter how a diff pairs them."""
    removed = Counter(line for c in changes for line in c.removed)
    added = Counter(line for c in changes for line in c.added)
    return removed - added, added - removed


def _places(
    block: tuple[bytes, ...], data: bytes, scopes: ScopeMap, scope: str
) -> list[int]:
    """The lines at which a block occurs with at least one line in a scope."""
    lines = split_lines(data)
    size = len(block)
    return [
        at + 1
        for at in range(len(lines) - size + 1)
        if lines[at] == block[0]
        and tuple(lines[at : at + size]) == block
        and any(scopes.at(at + 1 + i) == scope for i in range(size))
    ]


def _already_added(step: MergeStep, data: bytes, scopes: ScopeMap) -> str | None:
    """The scope already contains the lines of a hunk that only adds.

    It contains them more often than the pinned file, so the hunk would add them twice.
    """
    pinned = map_scopes(step.old)
    changes = step.changes()
    if pinned is None or any(change.removed for change in changes):
        return None
    sides = (data, scopes), (step.old, pinned)
    found, known = (
        [_places(change.added, *side, step.locked.scope) for change in changes]
        for side in sides
    )
    if not all(len(f) > len(k) for f, k in zip(found, known, strict=True)):
        return None
    at = ", ".join(str(place) for place in found[0])
    return f"{step.locked.scope} already has the added lines, at line {at}"


def _other_conditions(
    step: MergeStep, before: bytes, after: bytes, scopes: ScopeMap
) -> str | None:
    """The landing would be under other conditions than the pinned lines.

    A scope may contain two similar blocks, and the module scope spans the whole file.
    Inside a definition, other conditions are accepted if the pinned ones no longer
    exist: then upstream changed them, and no other place is similar to the hunk's.
    """
    landed, wanted = changes_between(before, after), step.changes()
    for sides, added in (((before, step.old), False), ((after, step.new), True)):
        found = guards_of(sides[0], landed, added)
        known = guards_of(sides[1], wanted, added)
        if found == known:
            continue
        scope = step.locked.scope
        lines = [
            Change(n, n, (line,), ())
            for n, line in enumerate(split_lines(before), 1)
            if scopes.at(n) == scope
        ]
        left = guards_of(before, lines, added=False)
        if scope == MODULE or (known - found) & left:
            names = sorted(" / ".join(guards) or "none" for guards in found - known)
            return f"it would be under other conditions: {' or '.join(names)}"
    return None
