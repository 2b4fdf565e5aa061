"""Checking that a tree is exactly what the lock records: blob ids first, then scopes.

Blob ids decide. If one differs, the scopes explain it: which hunk is not in its place,
and where its lines are instead.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from overlaykit.core.errors import Finding, OverlayError
from overlaykit.core.objects import Entry, blob_id, tree_id
from overlaykit.planning.plan import HunkPlan, Standing, State, locate
from overlaykit.planning.presence import scopes_with
from overlaykit.repository.sparse import LEFT_OUT, skip_worktree_steps
from overlaykit.series.carried import Carried
from overlaykit.series.lock import LockedHunk
from overlaykit.series.patches import Hunk, Patch
from overlaykit.trees.tree import DirectoryTree, Tree

_REPAIR = "remove the series and apply it again (scripts/apply.py), or restore the file"
_SAME = "the same file as in overlay/"


@dataclass(frozen=True)
class Inspection:
    """The state of each hunk, and a finding for every difference from the lock.

    ``digest`` is the git tree id of the overlay's files, to be compared with the
    lock's; it leaves out files that do not exist in this kind of tree.
    ``standing`` is the state of the tree as a whole. ``left_out`` are the files that
    git did not check out on purpose, as in a sparse clone.
    """

    hunks: tuple[HunkPlan, ...]
    findings: tuple[Finding, ...]
    digest: str
    skipped: tuple[str, ...]
    standing: Standing
    left_out: tuple[str, ...] = ()


def inspect(carried: Carried, tree: Tree) -> Inspection:
    """Compare a tree with the lock. Reads only the files that the lock names."""
    position = locate(carried, tree)
    missing = [path for path, data in position.contents.items() if data is None]
    left_out, unknown = _left_out(tree, missing)
    findings = [
        *_file_findings(carried, position.contents, left_out),
        *(
            _missing(path, "the overlay's file is missing", _SAME, left_out)
            for path in position.absent
        ),
        *(
            Finding(
                "is not the overlay's file",
                path=path,
                expected=_SAME,
                found=f"blob {blob_id(position.contents[path] or b'')}",
                next_step=_REPAIR,
            )
            for path in position.foreign
        ),
    ]
    hunks = []
    for patch, locked in zip(carried.series.patches, carried.lock.patches, strict=True):
        for diff, file in zip(patch.files, locked.files, strict=True):
            data = position.contents[diff.path]
            whole = blob_id(data or b"") == carried.chains[diff.path][-1]
            for hunk, known in zip(diff.hunks, file.hunks, strict=True):
                plan, finding = _inspect_hunk(patch, hunk, known, data, whole)
                hunks.append(plan)
                if diff.path not in left_out:
                    findings += finding
    return Inspection(
        tuple(hunks),
        (*findings, *unknown),
        _digest(carried, position.contents),
        position.skipped,
        position.standing(carried),
        tuple(left_out),
    )


def _left_out(
    tree: Tree, missing: Collection[str]
) -> tuple[Mapping[str, str], tuple[Finding, ...]]:
    """The missing files that git left out of the work tree, each with its next step;
    or why git cannot be asked."""
    if not isinstance(tree, DirectoryTree):
        return {}, ()
    try:
        return skip_worktree_steps(tree.root, missing), ()
    except OverlayError as error:
        return {}, error.findings


def _missing(
    path: str, what: str, expected: str, left_out: Mapping[str, str]
) -> Finding:
    found, step = "no file", _REPAIR
    if path in left_out:
        found, step = f"no file: {LEFT_OUT}", left_out[path]
    return Finding(what, path=path, expected=expected, found=found, next_step=step)


def _file_findings(
    carried: Carried, contents: Mapping[str, bytes | None], left_out: Mapping[str, str]
) -> list[Finding]:
    found = []
    for path, chain in carried.chains.items():
        data = contents[path]
        if data is None:
            what, expected = "is not the patched file", f"blob {chain[-1]}"
            found.append(_missing(path, what, expected, left_out))
            continue
        oid = blob_id(data)
        if oid == chain[-1]:
            continue
        among = {chain[0]: " (as released, without the series)"}
        among |= dict.fromkeys(chain[1:-1], " (with part of the series)")
        found.append(
            Finding(
                "is not the patched file",
                path=path,
                expected=f"blob {chain[-1]}",
                found=f"blob {oid}{among.get(oid, '')}",
                next_step=_REPAIR,
            )
        )
    return found


def _inspect_hunk(
    patch: Patch, hunk: Hunk, known: LockedHunk, data: bytes | None, whole: bool
) -> tuple[HunkPlan, list[Finding]]:
    def plan(state: State, detail: str = "") -> HunkPlan:
        return HunkPlan(
            patch.name,
            hunk.number,
            hunk.path,
            known.scope,
            known.sites,
            state,
            hunk.changes[0].new_line if whole else None,
            detail=detail,
        )

    if whole:
        return plan(State.APPLIED), []
    scopes = scopes_with(hunk, data) if data is not None else ()
    if scopes is not None and known.scope in scopes:
        return plan(State.APPLIED), []
    if scopes is None:
        state, found = State.CONFLICT, "a file that does not parse as Python"
    elif scopes and any(change.added for change in hunk.changes):
        state, found = State.MISPLACED, f"its lines in {', '.join(scopes)}"
    else:
        state, found = State.GONE, "its lines nowhere in the file"
    finding = Finding(
        "a hunk is not in its place",
        path=hunk.path,
        patch=patch.name,
        hunk=hunk.number,
        scope=known.scope,
        site=" ".join(known.sites) or None,
        expected=f"its lines in {known.scope}",
        found=found,
        next_step=_REPAIR,
    )
    return plan(state, found), [finding]


def _digest(carried: Carried, contents: Mapping[str, bytes | None]) -> str:
    return tree_id(
        {
            path: Entry(carried.modes[path], blob_id(data))
            for path, data in contents.items()
            if data is not None
        }
    )
