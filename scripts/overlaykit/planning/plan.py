"""The planner: what a series would do to a tree, hunk by hunk, and the result.

All verbs use this planner and differ only in what they do with the plan. If the touched
files are byte for byte as pinned, or as some prefix of the series leaves them, blob ids
decide, and hunks go exactly at their line numbers. Any other tree has drifted; then
:mod:`overlaykit.planning.landing` plans each hunk, for the message of a refusal and for
a rebase.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from overlaykit.core.errors import Finding, InputError
from overlaykit.core.objects import blob_id
from overlaykit.core.wording import pasteable
from overlaykit.repository.sparse import LEFT_OUT
from overlaykit.series.carried import Carried
from overlaykit.series.patches import apply_hunks, reverse_hunks
from overlaykit.trees.tree import Tree

OTHER_RELEASE = (
    "if the tree is another release, rebase the series onto it "
    "(scripts/drift.py, then scripts/rebase.py; see the README)"
)


class State(Enum):
    """The planned state of one hunk."""

    CLEAN = "clean"
    OFFSET = "offset"
    MERGED = "merged"
    RENAMED = "renamed"
    APPLIED = "in place"
    UPSTREAMED = "upstreamed"
    SUPERSEDED = "superseded"
    MISPLACED = "misplaced"
    AMBIGUOUS = "ambiguous"
    CONFLICT = "conflict"
    GONE = "gone"

    @property
    def lands(self) -> bool:
        """Whether the hunk would be in its scope in the result."""
        return self in _LANDING


_LANDING = {
    State.CLEAN,
    State.OFFSET,
    State.MERGED,
    State.RENAMED,
    State.APPLIED,
    State.UPSTREAMED,
}


class Standing(Enum):
    """The state of a tree, between the pin and the whole series."""

    PRISTINE = "pristine"
    APPLIED = "applied"
    PARTIAL = "partly applied"
    DRIFTED = "drifted"


UPSTREAMED = "upstreamed"
"""The outcome for a tree that is no base and needs no patch."""


@dataclass(frozen=True)
class HunkPlan:
    """The plan for one hunk; ``line`` is its first changed line in the result."""

    patch: str
    number: int
    path: str
    scope: str
    sites: tuple[str, ...]
    state: State
    line: int | None = None
    shift: int = 0
    detail: str = ""


@dataclass(frozen=True)
class FileChange:
    """A file before and after a change; None if there is no file."""

    path: str
    mode: str
    before: bytes | None
    after: bytes | None


@dataclass(frozen=True)
class Plan:
    """The plan for a tree. ``changes`` is empty if nothing would change.

    ``skipped`` are files of the overlay that have no place in this kind of tree: an
    installed package does not contain the repository's tests.
    """

    target: str
    tree: str
    standing: Standing
    hunks: tuple[HunkPlan, ...]
    changes: tuple[FileChange, ...]
    skipped: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True)
class Position:
    """The touched and new files of a tree, compared with the lock.

    ``steps`` has the number of applied patches per touched file. A file in a state that
    the lock does not know is in ``drifted`` instead. ``laid`` are the new files with
    the overlay's contents, ``foreign`` those with other contents.
    """

    contents: Mapping[str, bytes | None]
    steps: Mapping[str, int]
    drifted: tuple[str, ...]
    laid: tuple[str, ...]
    foreign: tuple[str, ...]
    absent: tuple[str, ...]
    skipped: tuple[str, ...] = field(default=())

    def in_chain(self, carried: Carried, path: str) -> bool:
        """Whether a touched file is in a state of the lock, ignoring its line ends."""
        data, chain = self.contents[path], carried.chains[path]
        return path in self.steps or (data is not None and _is_crlf_of(data, chain))

    def standing(self, carried: Carried) -> Standing:
        if self.drifted or self.foreign:
            return Standing.DRIFTED
        whole = {path: len(chain) - 1 for path, chain in carried.chains.items()}
        if self.steps == whole and not self.absent:
            return Standing.APPLIED
        if not any(self.steps.values()) and not self.laid:
            return Standing.PRISTINE
        return Standing.PARTIAL


def locate(carried: Carried, tree: Tree) -> Position:
    """Read only the files of the series and compare their blob ids with the lock."""
    contents: dict[str, bytes | None] = {}
    steps: dict[str, int] = {}
    drifted = []
    for path, chain in carried.chains.items():
        contents[path] = data = tree.read(path)
        oid = blob_id(data) if data is not None else ""
        if oid in chain:
            steps[path] = chain.index(oid)
        else:
            drifted.append(path)
    laid: list[str] = []
    foreign: list[str] = []
    absent: list[str] = []
    skipped: list[str] = []
    for new in carried.new_files:
        if not tree.holds(new.path):
            skipped.append(new.path)
            continue
        contents[new.path] = data = tree.read(new.path)
        kind = absent if data is None else laid if data == new.data else foreign
        kind.append(new.path)
    return Position(
        contents,
        steps,
        tuple(drifted),
        tuple(laid),
        tuple(foreign),
        tuple(absent),
        tuple(skipped),
    )


def plan_apply(
    carried: Carried,
    tree: Tree,
    committed: Tree | None = None,
    left_out: Mapping[str, str] | None = None,
) -> Plan:
    """The plan for applying the series.

    For a tree that is neither the pin nor the pin with the whole series, the plan has
    no changes, and its findings name every file that prevents it. ``committed``, a
    clone's checked out commit, distinguishes local edits from another release;
    ``left_out`` are files that git did not check out (see
    :mod:`overlaykit.repository.sparse`).
    """
    position = locate(carried, tree)
    standing = position.standing(carried)
    if standing is Standing.APPLIED:
        hunks = _hunk_plans(carried, State.APPLIED)
        return Plan(carried.name, tree.name, standing, hunks, (), position.skipped)
    if standing is not Standing.PRISTINE:
        return Plan(
            carried.name,
            tree.name,
            standing,
            (),
            (),
            position.skipped,
            _obstacles(carried, position, _Local(tree.name, committed, left_out or {})),
        )
    after: dict[str, bytes | None] = {}
    for path in carried.series.paths:
        data = position.contents[path]
        assert data is not None
        for (patch, diff), (_, locked) in zip(
            carried.series.diffs(path), carried.locked(path), strict=True
        ):
            result = apply_hunks(data, diff.hunks)
            if result is None or blob_id(result) != locked.after:
                raise InputError(
                    f"{patch.name} does not give {path} the contents in the lock; "
                    "run scripts/lock.py"
                )
            data = result
        after[path] = data
    for new in carried.new_files:
        if new.path not in position.skipped:
            after[new.path] = new.data
    return Plan(
        carried.name,
        tree.name,
        standing,
        _hunk_plans(carried, State.CLEAN),
        _changes(carried, position, after),
        position.skipped,
    )


def plan_unapply(carried: Carried, tree: Tree) -> Plan:
    """The plan for reverting the series.

    Any mix of contents that the lock knows can be reverted to the pin exactly, even if
    another tool left it half applied.
    """
    position = locate(carried, tree)
    standing = position.standing(carried)
    if standing is Standing.DRIFTED:
        return Plan(
            carried.name,
            tree.name,
            standing,
            (),
            (),
            position.skipped,
            _obstacles(carried, position),
        )
    after: dict[str, bytes | None] = {}
    for path, step in position.steps.items():
        data = position.contents[path]
        diffs = carried.series.diffs(path)[:step]
        for (patch, diff), (_, locked) in reversed(
            list(zip(diffs, carried.locked(path), strict=False))
        ):
            assert data is not None
            data = reverse_hunks(data, diff.hunks)
            if data is None or blob_id(data) != locked.before:
                raise InputError(
                    f"{patch.name} cannot be reverted in {path}; run scripts/lock.py"
                )
        after[path] = data
    after |= dict.fromkeys(position.laid)
    hunks = _hunk_plans(carried, State.CLEAN)
    return Plan(
        carried.name,
        tree.name,
        standing,
        hunks,
        _changes(carried, position, after),
        position.skipped,
    )


def _changes(
    carried: Carried, position: Position, after: Mapping[str, bytes | None]
) -> tuple[FileChange, ...]:
    return tuple(
        FileChange(path, carried.modes[path], position.contents[path], data)
        for path, data in after.items()
        if data != position.contents[path]
    )


def _hunk_plans(carried: Carried, state: State) -> tuple[HunkPlan, ...]:
    """The hunks of a landing that blob ids prove; lines count after the last patch."""
    plans = []
    for patch, locked in zip(carried.series.patches, carried.lock.patches, strict=True):
        for diff, file in zip(patch.files, locked.files, strict=True):
            for hunk, known in zip(diff.hunks, file.hunks, strict=True):
                plans.append(
                    HunkPlan(
                        patch.name,
                        hunk.number,
                        diff.path,
                        known.scope,
                        known.sites,
                        state,
                        hunk.changes[0].new_line,
                    )
                )
    return tuple(plans)


def _obstacles(
    carried: Carried, position: Position, local: _Local | None = None
) -> tuple[Finding, ...]:
    """Why a tree is neither the pin nor the pin with the whole series."""
    found = [_drift(carried, position, path, local) for path in position.drifted]
    found += [
        Finding(
            "is in the place of a new file of the overlay, with other contents",
            path=path,
            expected="no such file",
            found=f"blob {blob_id(position.contents[path] or b'')}",
            next_step="move it away; apply never overwrites other files",
        )
        for path in position.foreign
    ]
    if found:
        return tuple(found)
    for path, step in position.steps.items():
        diffs = carried.series.diffs(path)
        if position.absent and step == len(diffs):
            # Nothing is wrong with this file.
            continue
        within = ", ".join(p.name for p, _ in diffs[:step]) or "none"
        found.append(
            Finding(
                f"{step} of its {len(diffs)} patches are applied",
                path=path,
                expected="all of them, or none",
                found=f"applied: {within}",
                next_step="undo with the tool that applied them (quilt pop -a, "
                "git am --abort, git checkout), or run apply.py --unapply",
            )
        )
    found += [_absent(path, local) for path in position.absent]
    return tuple(found)


def _absent(path: str, local: _Local | None) -> Finding:
    what, step = "the new file is missing", None
    if local and path in local.left_out:
        what, step = f"{what}: {LEFT_OUT}", local.left_out[path]
    return Finding(what, path=path, expected="the overlay's file", next_step=step)


def _drift(
    carried: Carried, position: Position, path: str, local: _Local | None
) -> Finding:
    data = position.contents[path]
    chain = carried.chains[path]
    release = carried.target.release
    what, line, found, next_step = _difference(data, chain, release)
    if local and local.has_committed(path, chain):
        what, next_step = local.explained(path, data, what)
    return Finding(
        what,
        path=path,
        line=line,
        patch=carried.series.diffs(path)[0][0].name,
        expected=f"blob {chain[0]} ({release})",
        found=found,
        next_step=next_step,
    )


@dataclass(frozen=True)
class _Local:
    """Why a file in a clone differs from the committed one."""

    root: str
    committed: Tree | None
    left_out: Mapping[str, str]

    def has_committed(self, path: str, chain: tuple[str, ...]) -> bool:
        data = self.committed.read(path) if self.committed else None
        return data is not None and blob_id(data) in chain

    def explained(self, path: str, data: bytes | None, what: str) -> tuple[str, str]:
        """What is wrong and what to do. Changes that git made are no local edits."""
        if data is None and path in self.left_out:
            return f"{what}: {LEFT_OUT}", self.left_out[path]
        assert self.committed is not None
        if data and data.replace(b"\r\n", b"\n") == self.committed.read(path):
            git = ("git", "-C", self.root)
            steps = (
                [*git, "config", "core.autocrlf", "false"],
                ["rm", f"{self.root}/{path}"],
                [*git, "checkout", "--", path],
            )
            return what, f"{_LINE_ENDS}: {' && '.join(map(pasteable, steps))}"
        step = "commit, stash or undo them (git diff shows them)"
        return f"has uncommitted changes: it {what}", step


def _is_crlf_of(data: bytes, chain: tuple[str, ...]) -> bool:
    return b"\r\n" in data and blob_id(data.replace(b"\r\n", b"\n")) in chain


_LINE_ENDS = "check it out with core.autocrlf=false"


def _difference(
    data: bytes | None, chain: tuple[str, ...], release: str
) -> tuple[str, int | None, str, str]:
    """What is wrong with a file, the line, what was found, and what to do."""
    if data is None:
        step = f"check that this is {release}; {OTHER_RELEASE}"
        return "does not exist", None, "no file", step
    found = f"blob {blob_id(data)}"
    if _is_crlf_of(data, chain):
        found += ", the pinned text with CRLF"
        return "has CRLF line endings", None, found, _LINE_ENDS
    try:
        data.decode()
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        found += f", byte {data[error.start]:#04x}"
        return "is not UTF-8 text", line, found, "restore the file from upstream"
    return "is not the pinned file", None, found, OTHER_RELEASE
