"""Where hunks come down on a tree that has drifted, and whether that is their place.

Git merges, one hunk at a time (:mod:`overlaykit.merge`); this module judges. Textual
tools exit 0 with an edit in a look-alike function when the original was rewritten,
reordered or moved; so a merge counts as landed only if the lines it changed are those
of the hunk, all of them in the scope that the lock names, in a file where that scope
still means one thing. Whatever else comes out is a refusal with a name.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from difflib import SequenceMatcher
from pathlib import PurePosixPath

from overlaykit.carried import Carried
from overlaykit.lock import LockedHunk
from overlaykit.merge import MergeStore
from overlaykit.objects import blob_id
from overlaykit.patches import Change, Hunk, Patch, apply_hunks, split_lines
from overlaykit.plan import HunkPlan, State
from overlaykit.scopes import ScopeMap, map_scopes
from overlaykit.trees import Tree


@dataclass(frozen=True)
class Foreseen:
    """What the series comes to on a drifted tree.

    ``files`` holds the result by path, as far as it got; it is fit for use only where
    :attr:`lands` holds.
    """

    hunks: tuple[HunkPlan, ...]
    files: Mapping[str, bytes]

    @property
    def lands(self) -> bool:
        return all(hunk.state.lands for hunk in self.hunks)


def foresee(carried: Carried, tree: Tree, base: Tree) -> Foreseen:
    """Work out every hunk of the series on ``tree``; ``base`` is the pinned release.

    Reads the files that the series names; where one is gone, also the files that may
    be its new place. Writes nothing.
    """
    hunks: dict[tuple[str, str, int], HunkPlan] = {}
    files: dict[str, bytes] = {}
    with MergeStore() as store:
        for path in carried.series.paths:
            for plan in _foresee_file(carried, tree, base, path, store, files):
                hunks[plan.patch, path, plan.number] = plan
    ordered = (
        hunks[patch.name, diff.path, hunk.number]
        for patch in carried.series.patches
        for diff in patch.files
        for hunk in diff.hunks
    )
    return Foreseen(tuple(ordered), files)


def _foresee_file(
    carried: Carried,
    tree: Tree,
    base: Tree,
    path: str,
    store: MergeStore,
    files: dict[str, bytes],
) -> Iterator[HunkPlan]:
    pinned = base.read(path)
    if pinned is None or blob_id(pinned) != carried.chains[path][0]:
        raise ValueError(f"{base.name} is not the pin: {path}")
    found = tree.read(path)
    ours = {path: found} if found is not None else _candidates(tree, path)
    steps = zip(carried.series.diffs(path), carried.locked(path), strict=True)
    for (patch, diff), (_, locked) in steps:
        for number, (hunk, known) in enumerate(
            zip(diff.hunks, locked.hunks, strict=True)
        ):
            # Earlier hunks of this patch are in the base by now; its line numbers are
            # those of the file before the patch, so the base takes them together.
            old = apply_hunks(pinned, diff.hunks[:number])
            new = apply_hunks(pinned, diff.hunks[: number + 1])
            assert old is not None and new is not None
            step = _Step(patch, hunk, known, path, old, new)
            plan, ours = _land(step, ours, store)
            yield plan
        after = apply_hunks(pinned, diff.hunks)
        assert after is not None
        pinned = after
    if found is not None or len(ours) == 1:
        files.update(ours)


@dataclass(frozen=True)
class _Step:
    """One hunk between two states of its pinned file."""

    patch: Patch
    hunk: Hunk
    locked: LockedHunk
    path: str
    old: bytes
    new: bytes

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


def _land(
    step: _Step, ours: dict[str, bytes], store: MergeStore
) -> tuple[HunkPlan, dict[str, bytes]]:
    """Merge one hunk and judge the result; one that does not land changes nothing."""
    if not ours:
        return step.plan(State.GONE, "the file is gone and none took its place"), ours
    merged = store.merge({step.path: step.old}, ours, {step.path: step.new})
    if merged.conflicts or set(merged.files) != set(ours):
        return _stuck(step, ours, merged.files), ours
    touched = [path for path in ours if merged.files[path] != ours[path]]
    if not touched:
        present = any(_says_the_same(step, data) for data in ours.values())
        if present:
            return step.plan(State.UPSTREAMED, "the tree has these lines already"), ours
        return step.plan(State.SUPERSEDED, "the merge finds nothing left to do"), ours
    [path] = touched
    plan = _judge(step, path, ours[path], merged.files[path])
    if not plan.state.lands:
        return plan, ours
    # Renamed: the other candidates have done their service.
    return plan, {path: merged.files[path]}


def _stuck(
    step: _Step, ours: Mapping[str, bytes], merged: Mapping[str, bytes]
) -> HunkPlan:
    for data in ours.values():
        if _says_the_same(step, data):
            return step.plan(State.UPSTREAMED, "the tree has these lines already")
    if step.path not in ours:
        return step.plan(State.GONE, "the file is gone and no other is like it")
    scopes = map_scopes(ours[step.path])
    if scopes is not None and step.locked.scope not in scopes:
        return step.plan(State.GONE, f"{step.locked.scope} is gone from the file")
    text = merged.get(step.path, b"").decode(errors="replace")
    conflict = re.search(r"^<<<<<<< .*?^>>>>>>> .*?$", text, re.S | re.M)
    line = text[: conflict.start()].count("\n") + 1 if conflict else None
    return step.plan(
        State.CONFLICT, conflict.group() if conflict else "the merge fails", line=line
    )


def _judge(step: _Step, path: str, before: bytes, after: bytes) -> HunkPlan:
    """Whether what the merge changed is this hunk, in its scope."""
    old, new = map_scopes(before), map_scopes(after)
    if old is None or new is None:
        return step.plan(State.MISPLACED, f"{path} would not parse as Python")
    landed = _changes(before, after)
    first = landed[0].new_line
    scopes = {
        scopes.at(start + i)
        for change in landed
        for scopes, start, lines in (
            (old, change.old_line, change.removed),
            (new, change.new_line, change.added),
        )
        for i in range(len(lines))
    }
    scope = step.locked.scope
    where = ", ".join(sorted(scopes))
    if scopes != {scope}:
        detail = f"the merge would put it in {where} ({path}:{first}), not in {scope}"
        return step.plan(State.MISPLACED, detail, line=first)
    pinned = map_scopes(step.old)
    if pinned is None or _twins(old, scope) != _twins(pinned, scope):
        detail = f"{scope} is defined more or less often than in the pinned file"
        return step.plan(State.MISPLACED, detail, line=first)
    if _net(landed) != _net(step.hunk.changes):
        detail = f"the merge changes other lines than the hunk does ({path}:{first})"
        return step.plan(State.MISPLACED, detail, line=first)
    wanted = step.hunk.changes[0].new_line
    shift = first - wanted
    lines = split_lines(before)
    start = landed[0].old_line - step.hunk.changes[0].old_line + step.hunk.old_start - 1
    exact = tuple(lines[max(start, 0) : start + len(step.hunk.old)]) == step.hunk.old
    state = State.MERGED if not exact else State.OFFSET if shift else State.CLEAN
    if path != step.path:
        state = State.RENAMED
    detail = f"now in {path}" if path != step.path else ""
    return step.plan(state, detail, line=first, shift=shift)


def _changes(before: bytes, after: bytes) -> list[Change]:
    """The changed lines between two contents; what they share at the ends is cut off
    first, so that the search is as short as the change."""
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


def _net(changes: list[Change] | tuple[Change, ...]) -> tuple[Counter[bytes], ...]:
    """Lines lost and lines gained, whatever way a diff pairs them up."""
    removed = Counter(line for c in changes for line in c.removed)
    added = Counter(line for c in changes for line in c.added)
    return removed - added, added - removed


def _twins(scopes: ScopeMap, scope: str) -> int:
    """How many definitions share a scope's name, however deep the repetition is."""
    plain = re.sub(r"#\d+", "", scope)
    return len({name for name in scopes.names if re.sub(r"#\d+", "", name) == plain})


def _says_the_same(step: _Step, data: bytes) -> bool:
    """Whether the scope has every line that the hunk adds, run by run, and lost those
    that it removes."""
    scopes = map_scopes(data)
    if scopes is None:
        return False
    inside = [
        line
        for number, line in enumerate(split_lines(data), 1)
        if scopes.at(number) == step.locked.scope
    ]
    text = b"".join(inside)
    gained = [b"".join(c.added) for c in step.hunk.changes if c.added]
    lost, _ = _net(step.hunk.changes)
    if not gained:
        return not any(line in inside for line in lost)
    return all(run in text for run in gained) and not any(
        b"".join(c.removed) in text for c in step.hunk.changes if c.removed
    )


def _candidates(tree: Tree, path: str) -> dict[str, bytes]:
    """Files that a vanished file may have become: its name elsewhere, or its name with
    something added to it in the same folder. Git decides which is like it."""
    gone = PurePosixPath(path)
    found = {}
    for other in tree.paths():
        there = PurePosixPath(other)
        moved = there.name == gone.name
        grown = there.parent == gone.parent and there.stem.startswith(gone.stem)
        if there.suffix == gone.suffix and (moved or grown):
            data = tree.read(other)
            if data is not None:
                found[other] = data
    return found
