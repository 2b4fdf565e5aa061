"""A hunk that a maintainer has to put in: the three versions, and what may come back.

The merged file has git's markers (base in the middle) where git found a conflict; a
hunk that git would put into the wrong place, or nowhere, stands between markers at its
function, so that it cannot be overlooked.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

from overlaykit.core.errors import CannotApply, Finding
from overlaykit.core.objects import blob_id
from overlaykit.core.syntax import fault
from overlaykit.planning.placement import MergeStep, changes_between
from overlaykit.planning.plan import HunkPlan
from overlaykit.repository.merge import MergeStore
from overlaykit.series.patches import split_lines
from overlaykit.series.scopes import map_scopes

_MARKER = re.compile(rb"^(<<<<<<<|\|\|\|\|\|\|\||=======|>>>>>>>)( .*)?$", re.M)
_LABEL = re.compile(rb"^(<<<<<<<|\|\|\|\|\|\|\||>>>>>>>) [^\n]*$", re.M)


@dataclass(frozen=True)
class Conflict:
    """A hunk at which the rebase stops.

    ``base`` and ``ours`` are its pinned file before and after it; ``upstream`` the new
    base's file with what has been carried so far, None where there is no such file;
    ``merged`` what a maintainer edits; ``scopes`` those whose lines may change.
    """

    id: str
    plan: HunkPlan
    path: str | None
    base: bytes
    ours: bytes
    upstream: bytes | None
    merged: bytes | None
    scopes: frozenset[str]


def conflict_of(
    step: MergeStep,
    plan: HunkPlan,
    path: str | None,
    upstream: bytes | None,
    marked: bytes | None,
    scopes: frozenset[str],
    store: MergeStore,
) -> Conflict:
    """The conflict's three-way view, under a digest of all that it depends on."""
    names = (step.patch.name, str(step.hunk.number), step.path, path or "", *scopes)
    contents = (step.old, step.new, upstream or b"")
    about = "\0".join([*sorted(names), *map(blob_id, contents)])
    merged = marked
    if upstream is not None and path is not None and merged is None:
        found = store.merge(
            {step.path: step.old}, {path: upstream}, {step.path: step.new}
        )
        if set(found.files) == {path} and found.conflicts:
            merged = found.files[path]
        else:
            merged = _hunk_with_markers(step, upstream)
    return Conflict(
        hashlib.sha256(about.encode()).hexdigest(),
        plan,
        path,
        step.old,
        step.new,
        upstream,
        None if merged is None else _labelled(merged, step),
        scopes,
    )


def _hunk_with_markers(step: MergeStep, upstream: bytes) -> bytes:
    """The hunk between markers, at the head of its scope or at the end of the file."""
    lines = split_lines(upstream)
    scopes = map_scopes(upstream)
    at = len(lines)
    if scopes is not None and step.locked.scope in scopes:
        at = max(scopes.starts[scopes.names.index(step.locked.scope)] - 1, 0)
    block = [
        b"<<<<<<<\n",
        b"||||||| \n",
        *step.hunk.old,
        b"=======\n",
        *step.hunk.new,
        b">>>>>>> \n",
    ]
    return b"".join([*lines[:at], *block, *lines[at:]])


def _labelled(merged: bytes, step: MergeStep) -> bytes:
    """Markers that name the sides, not the scratch commits they were merged from."""
    hunk = f"{step.patch.name} hunk {step.hunk.number}".encode()
    names = {b"<<<<<<<": b"upstream", b"|||||||": b"base", b">>>>>>>": hunk}
    merged = re.sub(rb"^<<<<<<<$", b"<<<<<<< -", merged, flags=re.M)
    return _LABEL.sub(lambda found: found[1] + b" " + names[found[1]], merged)


def scopes_changed(before: bytes, after: bytes) -> set[str] | None:
    """The scopes of all lines that differ; None where a side does not parse."""
    old, new = map_scopes(before), map_scopes(after)
    if old is None or new is None:
        return None
    return {
        scopes.at(start + i)
        for change in changes_between(before, after)
        for scopes, start, lines in (
            (old, change.old_line, change.removed),
            (new, change.new_line, change.added),
        )
        for i, line in enumerate(lines)
        if line.strip()
    }


def check_resolution(conflict: Conflict, data: bytes, name: str) -> None:
    """Raises CannotApply where an edited file cannot stand for the hunk."""
    if conflict.upstream is None:
        raise ValueError("there is no file to resolve")
    known = set(split_lines(conflict.upstream))
    markers = (m for m in _MARKER.finditer(data) if m[0] + b"\n" not in known)
    if (marker := next(markers, None)) is not None:
        at = data[: marker.start()].count(b"\n") + 1
        raise _refused(
            conflict, name, "has conflict markers", at,
            "no line that begins with <<<<<<<, |||||||, ======= or >>>>>>>",
            marker[0].decode(errors="replace"),
            "edit them away, then run --continue again",
        )  # fmt: skip
    changed = scopes_changed(conflict.upstream, data)
    if changed is None:
        raise _refused(
            conflict, name, "does not parse as Python", _error_line(data),
            "Python", "a syntax error", "correct it, then run --continue again",
        )  # fmt: skip
    outside = changed - conflict.scopes
    scopes = map_scopes(conflict.upstream)
    renamed = scopes is not None and conflict.plan.scope not in scopes
    if outside and not (renamed and len(outside) == 1):
        after = map_scopes(data)
        line = next(
            (
                change.new_line + i
                for change in changes_between(conflict.upstream, data)
                for i in range(len(change.added))
                if after and after.at(change.new_line + i) in outside
            ),
            None,
        )
        raise _refused(
            conflict, name, "changes more than the patch may", line,
            f"changed lines in {', '.join(sorted(conflict.scopes))} only",
            f"changed lines in {', '.join(sorted(outside))}",
            "take them back; another change is a patch of its own",
        )  # fmt: skip


def _refused(
    conflict: Conflict,
    name: str,
    what: str,
    line: int | None,
    expected: str,
    found: str,
    step: str,
) -> CannotApply:
    plan = conflict.plan
    finding = Finding(
        what,
        path=name,
        line=line,
        patch=plan.patch,
        hunk=plan.number,
        scope=plan.scope,
        site=" ".join(plan.sites) or None,
        expected=expected,
        found=found,
        next_step=step,
    )
    return CannotApply(f"{name} {what}", (finding,))


def _error_line(data: bytes) -> int | None:
    error = fault(data)
    return None if error is None else error.lineno
