"""Where hunks come down on a tree that has drifted, and whether that is their place.

Git merges, one hunk at a time (:mod:`overlaykit.repository.merge`); this module judges.
Textual tools exit 0 with an edit in a look-alike function when the original was
rewritten, reordered or moved; so a merge counts as landed only if the lines it changed
are those of the hunk, all of them in the scope that the lock names, under the ifs and
loops that they were written under, in a file where that scope still means one thing,
and in the one place of it that the lines around them single out. A hunk is upstream
already only if it could be taken off again, judged in the same way. Whatever else comes
out is a refusal with a name.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

from overlaykit.core.objects import blob_id
from overlaykit.planning.placement import Step, judge
from overlaykit.planning.plan import HunkPlan, State
from overlaykit.repository.merge import MergeStore
from overlaykit.series.carried import Carried
from overlaykit.series.patches import apply_hunks
from overlaykit.series.scopes import MODULE, map_scopes
from overlaykit.trees.tree import EditedTree, Tree


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
    whole = carried.series.patched(path, pinned)
    # Another path of the series may have brought its hunks here.
    sofar = EditedTree(tree, files)
    data, where = sofar.read(path), path
    why = ""
    if data is None:
        names = {hunk.scope for _, file in carried.locked(path) for hunk in file.hunks}
        found = successors(sofar, path, names)
        if len(found) == 1:
            [(where, data)] = found.items()
        else:
            likely = ", ".join(sorted(found)) or "none"
            why = f"the file is gone; what may have taken its place: {likely}"
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
            step = Step(patch, hunk, known, path, old, new, whole)
            if data is None:
                yield step.plan(State.GONE, why)
                continue
            plan, data = land(step, where, data, store)
            yield plan
        after = apply_hunks(pinned, diff.hunks)
        assert after is not None
        pinned = after
    if data is not None:
        files[where] = data


def land(
    step: Step, where: str, data: bytes, store: MergeStore
) -> tuple[HunkPlan, bytes]:
    """Merge one hunk and judge the result; one that does not land changes nothing."""
    merged, after = _merge(step, where, data, store)
    if after is None or after == data:
        taken_off = _taken_off(step, where, data, store)
        if taken_off is not None and taken_off.state.lands:
            return step.plan(State.UPSTREAMED, "the tree has these lines already"), data
        if after is not None:
            if taken_off is not None and taken_off.state is State.AMBIGUOUS:
                return taken_off, data
            detail = "the merge finds nothing left to do"
            return step.plan(State.SUPERSEDED, detail), data
        return _stuck(step, where, data, merged), data
    plan = judge(step, where, data, after)
    return plan, after if plan.state.lands else data


def _merge(
    step: Step, where: str, data: bytes, store: MergeStore
) -> tuple[Mapping[str, bytes], bytes | None]:
    """What the merge leaves, and the file's new contents unless it failed."""
    merged = store.merge({step.path: step.old}, {where: data}, {step.path: step.new})
    if merged.conflicts or set(merged.files) != {where}:
        return merged.files, None
    return merged.files, merged.files[where]


def _taken_off(
    step: Step, where: str, data: bytes, store: MergeStore
) -> HunkPlan | None:
    """What taking the hunk off again would come to; None where there is nothing to
    take off. That it lands is the only proof that the hunk is in.

    That its lines stand somewhere in the scope is none: another branch may have them,
    while this one was rewritten.
    """
    back = step.undone()
    _, after = _merge(back, where, data, store)
    if after is None or after == data:
        return None
    return judge(back, where, data, after)


def _stuck(
    step: Step, where: str, data: bytes, merged: Mapping[str, bytes]
) -> HunkPlan:
    if set(merged) != {where}:
        detail = f"the file is gone, and {where} is not like it"
        return step.plan(State.GONE, detail)
    scopes = map_scopes(data)
    if scopes is not None and step.locked.scope not in scopes:
        return step.plan(State.GONE, f"{step.locked.scope} is gone from {where}")
    if b"\r\n" in data and b"\r\n" not in step.old:
        return step.plan(State.CONFLICT, f"{where} has CRLF line ends")
    text = merged[where].decode(errors="replace")
    conflict = re.search(r"^<<<<<<< .*?^>>>>>>> .*?$", text, re.S | re.M)
    if conflict is None:
        return step.plan(State.CONFLICT, f"the merge of {where} fails")
    line = text[: conflict.start()].count("\n") + 1
    detail = f"{where}:{line} has other changes to these lines:\n{conflict.group()}"
    return step.plan(State.CONFLICT, detail, line=line)


def successors(tree: Tree, path: str, scopes: set[str]) -> dict[str, bytes]:
    """Files that a vanished file may have become: its name elsewhere, or its name with
    something added to it in the same folder, with a definition that hunks are about.
    Git decides whether it is like the vanished one, so there must be one only."""
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
