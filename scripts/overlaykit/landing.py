"""Where hunks come down on a tree that has drifted, and whether that is their place.

Git merges, one hunk at a time (:mod:`overlaykit.merge`); this module judges. Textual
tools exit 0 with an edit in a look-alike function when the original was rewritten,
reordered or moved; so a merge counts as landed only if the lines it changed are those
of the hunk, all of them in the scope that the lock names, under the ifs and loops that
they were written under, in a file where that scope still means one thing. A hunk is
upstream already only if it could be taken off again, judged in the same way. Whatever
else comes out is a refusal with a name.
"""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from difflib import SequenceMatcher
from functools import lru_cache
from pathlib import PurePosixPath

from overlaykit.carried import Carried
from overlaykit.lock import LockedHunk
from overlaykit.merge import MergeStore
from overlaykit.objects import blob_id
from overlaykit.patches import Change, Hunk, Patch, apply_hunks, split_lines
from overlaykit.plan import HunkPlan, State
from overlaykit.scopes import MODULE, ScopeMap, map_scopes
from overlaykit.trees import EditedTree, Tree


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
    # Another path of the series may have brought its hunks here.
    sofar = EditedTree(tree, files)
    data, where = sofar.read(path), path
    why = ""
    if data is None:
        names = {hunk.scope for _, file in carried.locked(path) for hunk in file.hunks}
        found = _candidates(sofar, path, names)
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
            step = _Step(patch, hunk, known, path, old, new)
            if data is None:
                yield step.plan(State.GONE, why)
                continue
            plan, data = _land(step, where, data, store)
            yield plan
        after = apply_hunks(pinned, diff.hunks)
        assert after is not None
        pinned = after
    if data is not None:
        files[where] = data


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

    def undone(self) -> _Step:
        """The step that takes this one back."""
        return replace(self, hunk=self.hunk.reversed(), old=self.new, new=self.old)

    def changes(self) -> list[Change]:
        """What it changes, found as the changes of a landing are."""
        return _changes(self.old, self.new)


def _land(
    step: _Step, where: str, data: bytes, store: MergeStore
) -> tuple[HunkPlan, bytes]:
    """Merge one hunk and judge the result; one that does not land changes nothing."""
    merged, after = _merge(step, where, data, store)
    if after is None or after == data:
        if _is_there(step, where, data, store):
            return step.plan(State.UPSTREAMED, "the tree has these lines already"), data
        if after is not None:
            detail = "the merge finds nothing left to do"
            return step.plan(State.SUPERSEDED, detail), data
        return _stuck(step, where, data, merged), data
    plan = _judge(step, where, data, after)
    return plan, after if plan.state.lands else data


def _merge(
    step: _Step, where: str, data: bytes, store: MergeStore
) -> tuple[Mapping[str, bytes], bytes | None]:
    """What the merge leaves, and the file's new contents unless it failed."""
    merged = store.merge({step.path: step.old}, {where: data}, {step.path: step.new})
    if merged.conflicts or set(merged.files) != {where}:
        return merged.files, None
    return merged.files, merged.files[where]


def _is_there(step: _Step, where: str, data: bytes, store: MergeStore) -> bool:
    """Whether the hunk could be taken off again: the only proof that it is in.

    That its lines stand somewhere in the scope is none: another branch may have them,
    while this one was rewritten.
    """
    back = step.undone()
    _, after = _merge(back, where, data, store)
    if after is None or after == data:
        return False
    return _judge(back, where, data, after).state.lands


def _stuck(
    step: _Step, where: str, data: bytes, merged: Mapping[str, bytes]
) -> HunkPlan:
    if set(merged) != {where}:
        detail = f"the file is gone, and {where} is not like it"
        return step.plan(State.GONE, detail)
    scopes = _scopes(data)
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


def _judge(step: _Step, path: str, before: bytes, after: bytes) -> HunkPlan:
    """Whether what the merge changed is this hunk, in its place."""
    old, new = _scopes(before), _scopes(after)
    if old is None or new is None:
        return step.plan(State.MISPLACED, f"{path} would not parse as Python")
    landed = _changes(before, after)
    first = landed[0].new_line
    places = _places(step.hunk.old, before, old, step.locked.scope)
    objection = (
        _outside(step, landed, old, new)
        or _ambiguous(step, before, old, places)
        or _other_lines(step, landed)
        or _strays(step, before, after, old)
        or _twice(step, before, old)
    )
    if objection:
        return step.plan(State.MISPLACED, f"{path}:{first}: {objection}", line=first)
    shift = first - step.hunk.changes[0].new_line
    start = landed[0].old_line - step.hunk.changes[0].old_line + step.hunk.old_start
    state = State.OFFSET if shift else State.CLEAN
    if start not in places:
        state = State.MERGED
    if path != step.path:
        state = State.RENAMED
    detail = f"now in {path}" if path != step.path else ""
    return step.plan(state, detail, line=first, shift=shift)


def _outside(
    step: _Step, landed: list[Change], old: ScopeMap, new: ScopeMap
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


def _ambiguous(
    step: _Step, data: bytes, scopes: ScopeMap, places: list[int]
) -> str | None:
    """A scope, or a place in it, of which there is more than one."""
    scope = step.locked.scope
    if not _means_the_same(step, data, scopes):
        return f"{scope} has other definitions of its name than in the pinned file"
    if len(places) > 1:
        at = ", ".join(map(str, places))
        return f"{scope} has this context {len(places)} times, at lines {at}"
    return None


def _other_lines(step: _Step, landed: list[Change]) -> str | None:
    if _net(landed) != _net(step.hunk.changes):
        return "the merge changes other lines than the hunk does"
    return None


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


@lru_cache(maxsize=16)
def _scopes(data: bytes) -> ScopeMap | None:
    """The scopes, unless lines are not what they seem: Python ends one at a lone
    carriage return, git does not."""
    return None if re.search(rb"\r(?!\n)", data) else map_scopes(data)


def _means_the_same(step: _Step, data: bytes, scopes: ScopeMap) -> bool:
    """Whether a scope's name is as telling as it was in the pinned file: no definition
    of that name, nor of what it lies in, is there besides but those that were."""
    pinned = _scopes(step.old)
    parts = step.locked.scope.split(".")
    names = [".".join(parts[: n + 1]) for n in range(len(parts))]
    return pinned is not None and all(
        _namesakes(data, scopes, name) == _namesakes(step.old, pinned, name)
        for name in names
    )


def _namesakes(data: bytes, scopes: ScopeMap, scope: str) -> list[bytes]:
    """The sources of the other definitions of a scope's name."""
    plain = re.sub(r"#\d+", "", scope)
    depth = scope.count(".") + 1
    found: dict[str, list[bytes]] = {}
    for number, line in enumerate(split_lines(data), 1):
        name = ".".join(scopes.at(number).split(".")[:depth])
        if name != scope and re.sub(r"#\d+", "", name) == plain:
            found.setdefault(name, []).append(line)
    return [b"".join(lines) for lines in found.values()]


def _places(
    block: tuple[bytes, ...], data: bytes, scopes: ScopeMap, scope: str
) -> list[int]:
    """The lines at which a run of lines stands that has part in a scope."""
    lines = split_lines(data)
    size = len(block)
    return [
        at + 1
        for at in range(len(lines) - size + 1)
        if lines[at] == block[0]
        and tuple(lines[at : at + size]) == block
        and any(scopes.at(at + 1 + i) == scope for i in range(size))
    ]


def _twice(step: _Step, data: bytes, scopes: ScopeMap) -> str | None:
    """Lines of a hunk that only adds, in its scope oftener than in the pinned file: it
    must not add them twice."""
    pinned = _scopes(step.old)
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
    return f"{step.locked.scope} has the added lines elsewhere already, at line {at}"


def _strays(step: _Step, before: bytes, after: bytes, scopes: ScopeMap) -> str | None:
    """Conditions, in place of the pinned ones, that a landing would come under.

    A scope may have a twin within itself, and the module is hardly a scope at all.
    Inside a definition other conditions are let pass if the pinned ones are no longer
    there: then upstream changed them, and nothing else is like the hunk's place.
    """
    landed, wanted = _changes(before, after), step.changes()
    for sides, added in (((before, step.old), False), ((after, step.new), True)):
        found = _guards(sides[0], landed, added)
        known = _guards(sides[1], wanted, added)
        if found == known:
            continue
        scope = step.locked.scope
        lines = [
            Change(n, n, (line,), ())
            for n, line in enumerate(split_lines(before), 1)
            if scopes.at(n) == scope
        ]
        left = _guards(before, lines, added=False)
        if scope == MODULE or (known - found) & left:
            names = sorted(" / ".join(guards) or "none" for guards in found - known)
            return f"it would come under other conditions: {' or '.join(names)}"
    return None


def _guards(data: bytes, changes: list[Change], added: bool) -> set[tuple[str, ...]]:
    """What the changed lines of code stand under, inside their definition."""
    module = ast.parse(data)
    return {
        _guards_of(module, start + i)
        for change in changes
        for start, lines in (
            [(change.new_line, change.added)]
            if added
            else [(change.old_line, change.removed)]
        )
        for i, line in enumerate(lines)
        if line.strip() and not line.strip().startswith(b"#")
    }


_Block = (ast.stmt, ast.ExceptHandler, ast.match_case)
_Definition = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


def _guards_of(module: ast.Module, line: int) -> tuple[str, ...]:
    """The conditions, loops and other blocks around a line, outermost first."""
    guards: tuple[str, ...] = ()
    node: ast.AST = module
    while inner := _inner(node, line):
        branch, child = inner
        if isinstance(node, _Definition):
            guards = ()
        elif node is not module:
            guards = (*guards, _guard(node, branch))
        node = child
    return guards


def _inner(node: ast.AST, line: int) -> tuple[str, ast.AST] | None:
    """The statement of a block that a line is in, and in which of its branches."""
    for branch, children in ast.iter_fields(node):
        for child in _blocks(children):
            if _covers(child, line):
                return branch, child
    return None


def _blocks(children: object) -> list[ast.AST]:
    if not isinstance(children, list):
        return []
    return [child for child in children if isinstance(child, _Block)]


def _covers(node: ast.AST, line: int) -> bool:
    if isinstance(node, ast.match_case):
        return node.pattern.lineno <= line <= (node.body[-1].end_lineno or 0)
    assert isinstance(node, ast.stmt | ast.ExceptHandler)
    first = [node.lineno]
    if isinstance(node, _Definition):
        first += [decorator.lineno for decorator in node.decorator_list]
    return min(first) <= line <= (node.end_lineno or 0)


def _guard(node: ast.AST, branch: str) -> str:
    """A block's kind, branch and condition."""
    parts = [
        ast.unparse(child)
        for child in ast.iter_child_nodes(node)
        if not isinstance(child, _Block)
    ]
    kind = type(node).__name__.lower()
    return " ".join([kind if branch == "body" else f"{branch} of {kind}", *parts])


def _candidates(tree: Tree, path: str, scopes: set[str]) -> dict[str, bytes]:
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
        holds = _scopes(data) if data is not None else None
        if data is not None and (not named or (holds and named & set(holds.names))):
            found[other] = data
    return found
