"""Finds where hunks land on a drifted tree, and checks that the place is right.

Git merges one hunk at a time (:mod:`overlaykit.repository.merge`); this module checks
the result. When the original was rewritten, reordered or moved, textual tools put the
edit into a look-alike function and exit 0. So a hunk lands only if all of these hold:

- the merge changed exactly the lines of the hunk;
- all of them are in the scope that the lock names, under the same ifs and loops;
- the name of that scope still has one meaning in the file;
- the lines around them identify one place in the scope.

A hunk is upstream already only if reverting it would pass the same checks. Any other
result is a refusal, with its state.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from overlaykit.core.objects import blob_id
from overlaykit.planning.placement import MergeStep, check_landing
from overlaykit.planning.plan import HunkPlan, State
from overlaykit.repository.merge import MergeStore
from overlaykit.series.carried import Carried
from overlaykit.series.patches import apply_hunks
from overlaykit.series.scopes import MODULE, map_scopes
from overlaykit.trees.tree import EditedTree, Tree


@dataclass(frozen=True)
class DriftedPlan:
    """The result of the series on a drifted tree.

    ``files`` has the resulting contents by path. It is incomplete unless :attr:`lands`
    holds.
    """

    hunks: tuple[HunkPlan, ...]
    files: Mapping[str, bytes]

    @property
    def lands(self) -> bool:
        return all(hunk.state.lands for hunk in self.hunks)


@dataclass
class Landings:
    """The landings of one series on the contents of single files.

    Trees of neighbouring commits differ in few files, and what a file's hunks do
    depends on that file alone.
    """

    known: dict[tuple[str, str, bytes], tuple[tuple[HunkPlan, ...], bytes]] = field(
        default_factory=dict
    )

    def get(
        self, path: str, where: str, data: bytes, find: Callable[[], Iterator[_Landed]]
    ) -> tuple[tuple[HunkPlan, ...], bytes]:
        """The plans of a path's hunks, and the resulting contents."""
        asked = path, where, data
        answer = self.known.pop(asked, None)
        if answer is None:
            steps = list(find())
            answer = tuple(plan for plan, _ in steps), steps[-1][1]
        self.known[asked] = answer
        while len(self.known) > _MOST_LANDINGS:
            del self.known[next(iter(self.known))]
        return answer


_Landed = tuple[HunkPlan, bytes]
_MOST_LANDINGS = 200


def plan_drifted(
    carried: Carried, tree: Tree, base: Tree, landings: Landings | None = None
) -> DriftedPlan:
    """Plan every hunk of the series on ``tree``; ``base`` is the pinned release.

    Reads the files of the series and, for a file that is gone, its possible successors.
    Writes nothing. ``landings`` are those of this series on other trees.
    """
    landings = landings or Landings()
    hunks: dict[tuple[str, str, int], HunkPlan] = {}
    files: dict[str, bytes] = {}
    with MergeStore() as store:
        for path in carried.series.paths:
            plans = _plan_drifted_file(
                carried, tree, base, path, store, files, landings
            )
            for plan in plans:
                hunks[plan.patch, path, plan.number] = plan
    ordered = (
        hunks[patch.name, diff.path, hunk.number]
        for patch in carried.series.patches
        for diff in patch.files
        for hunk in diff.hunks
    )
    return DriftedPlan(tuple(ordered), files)


def _plan_drifted_file(
    carried: Carried,
    tree: Tree,
    base: Tree,
    path: str,
    store: MergeStore,
    files: dict[str, bytes],
    landings: Landings,
) -> tuple[HunkPlan, ...]:
    pinned = base.read(path)
    if pinned is None or blob_id(pinned) != carried.chains[path][0]:
        raise ValueError(f"{base.name} is not the pin: {path}")
    # Hunks of another path of the series may have landed here.
    sofar = EditedTree(tree, files)
    data, where = sofar.read(path), path
    if data is None:
        names = {hunk.scope for _, file in carried.locked(path) for hunk in file.hunks}
        found = successors(sofar, path, names)
        if len(found) != 1:
            likely = ", ".join(sorted(found)) or "none"
            why = f"the file is gone; possible successors: {likely}"
            steps = merge_steps(carried, path, pinned)
            return tuple(step.plan(State.GONE, why) for step in steps)
        [(where, data)] = found.items()
    before = data

    def landed() -> Iterator[_Landed]:
        now = before
        for step in merge_steps(carried, path, pinned):
            plan, now = land(step, where, now, store)
            yield plan, now

    plans, files[where] = landings.get(path, where, data, landed)
    return plans


def merge_steps(carried: Carried, path: str, pinned: bytes) -> Iterator[MergeStep]:
    """The steps of a path's hunks, in the order of the series."""
    whole = carried.series.patched(path, pinned)
    pairs = zip(carried.series.diffs(path), carried.locked(path), strict=True)
    for (patch, diff), (_, locked) in pairs:
        for number, (hunk, known) in enumerate(
            zip(diff.hunks, locked.hunks, strict=True)
        ):
            # Apply the earlier hunks of this patch to the base as well. Line numbers
            # count from the file before the patch, so all of them go in at once.
            old = apply_hunks(pinned, diff.hunks[:number])
            new = apply_hunks(pinned, diff.hunks[: number + 1])
            assert old is not None and new is not None
            yield MergeStep(patch, hunk, known, path, old, new, whole)
        after = apply_hunks(pinned, diff.hunks)
        assert after is not None
        pinned = after


def land(
    step: MergeStep, where: str, data: bytes, store: MergeStore
) -> tuple[HunkPlan, bytes]:
    """Merge one hunk and check its place. If it does not land, the file stays."""
    merged, after = _merge(step, where, data, store)
    if after is None or after == data:
        taken_off = _reversed(step, where, data, store)
        if taken_off is not None and taken_off.state.lands:
            return step.plan(State.UPSTREAMED, "the tree already has these lines"), data
        if after is not None:
            if taken_off is not None and taken_off.state is State.AMBIGUOUS:
                return taken_off, data
            detail = "the merge changes nothing"
            return step.plan(State.SUPERSEDED, detail), data
        return _not_merged(step, where, data, merged), data
    plan = check_landing(step, where, data, after)
    return plan, after if plan.state.lands else data


def _merge(
    step: MergeStep, where: str, data: bytes, store: MergeStore
) -> tuple[Mapping[str, bytes], bytes | None]:
    """The merged files, and the new contents of this one; None if the merge failed."""
    if where == step.path and data in (step.old, step.new):
        # Only one side changes the file, or both change it alike.
        return {where: step.new}, step.new
    merged = store.merge({step.path: step.old}, {where: data}, {step.path: step.new})
    if merged.conflicts or set(merged.files) != {where}:
        return merged.files, None
    return merged.files, merged.files[where]


def _reversed(
    step: MergeStep, where: str, data: bytes, store: MergeStore
) -> HunkPlan | None:
    """The plan for reverting the hunk; None if there is nothing to revert.

    Only if this plan lands is the hunk in the file. It is not enough that the scope
    contains its lines: another branch may have them while this one was rewritten.
    """
    back = step.undone()
    _, after = _merge(back, where, data, store)
    if after is None or after == data:
        return None
    return check_landing(back, where, data, after)


def _not_merged(
    step: MergeStep, where: str, data: bytes, merged: Mapping[str, bytes]
) -> HunkPlan:
    if set(merged) != {where}:
        detail = f"the file is gone, and {where} is not similar to it"
        return step.plan(State.GONE, detail)
    scopes = map_scopes(data)
    if scopes is not None and step.locked.scope not in scopes:
        return step.plan(State.GONE, f"{step.locked.scope} is gone from {where}")
    if b"\r\n" in data and b"\r\n" not in step.old:
        return step.plan(State.CONFLICT, f"{where} has CRLF line endings")
    text = merged[where].decode(errors="replace")
    conflict = re.search(r"^<<<<<<< .*?^>>>>>>> .*?$", text, re.S | re.M)
    if conflict is None:
        return step.plan(State.CONFLICT, f"the merge of {where} failed")
    line = text[: conflict.start()].count("\n") + 1
    detail = f"{where}:{line} has other changes to these lines:\n{conflict.group()}"
    return step.plan(State.CONFLICT, detail, line=line)


def successors(tree: Tree, path: str, scopes: set[str]) -> dict[str, bytes]:
    """Possible successors of a file that is gone.

    A successor has the same name in another folder, or a longer name in the same one,
    and contains a definition that a hunk changes. Git then decides whether it is
    similar, so the caller needs exactly one.
    """
    gone = PurePosixPath(path)
    named = scopes - {MODULE}
    found = {}
    for other in tree.paths():
        there = PurePosixPath(other)
        moved = there.name == gone.name
        grown = there.parent == gone.parent and there.stem.startswith(gone.stem)
        if there.suffix != gone.suffix or not (moved or grown):
            continue
        data = tree.read(other)
        holds = map_scopes(data) if data is not None else None
        if data is not None and (not named or (holds and named & set(holds.names))):
            found[other] = data
    return found
