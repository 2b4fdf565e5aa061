"""A hunk that a maintainer must resolve: the three versions, and the checks of a
resolution.

Where git found a conflict, the merged file has git's markers, with the base in the
middle. A hunk that git would put in the wrong place, or nowhere, is between markers at
its function, so that nobody overlooks it.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

from overlaykit.core.errors import CannotApply, Finding
from overlaykit.core.objects import blob_id
from overlaykit.core.syntax import syntax_error
from overlaykit.planning.placement import MergeStep, changes_between
from overlaykit.planning.plan import HunkPlan
from overlaykit.repository.merge import MergeStore
from overlaykit.series.patches import Patch, split_lines
from overlaykit.series.scopes import map_scopes

_MARKER = re.compile(rb"^(<<<<<<<|\|\|\|\|\|\|\||=======|>>>>>>>)( .*)?$", re.M)
_LABEL = re.compile(rb"^(<<<<<<<|\|\|\|\|\|\|\||>>>>>>>) [^\n]*$", re.M)


@dataclass(frozen=True)
class Conflict:
    """A hunk at which the rebase stops.

    ``base`` and ``ours`` are the pinned file before and after the hunk. ``upstream`` is
    the new base's file with the hunks carried so far, or None if there is no file.
    ``merged`` is the file that the maintainer edits. ``scopes`` are the scopes whose
    lines may change.
    """

    id: str
    patch: Patch
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
    """The conflict's three versions; its id is a digest of everything it depends on."""
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
        step.patch,
        plan,
        path,
        step.old,
        step.new,
        upstream,
        None if merged is None else _labelled(merged, step),
        scopes,
    )


def _hunk_with_markers(step: MergeStep, upstream: bytes) -> bytes:
    """The file with the hunk between markers, before its scope or at the end."""
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
    """Label the markers with the sides instead of the scratch commits."""
    hunk = f"{step.patch.name} hunk {step.hunk.number}".encode()
    names = {b"<<<<<<<": b"upstream", b"|||||||": b"base", b">>>>>>>": hunk}
    merged = re.sub(rb"^<<<<<<<$", b"<<<<<<< -", merged, flags=re.M)
    return _LABEL.sub(lambda found: found[1] + b" " + names[found[1]], merged)


def scopes_changed(before: bytes, after: bytes) -> set[str] | None:
    """The scopes of all lines that differ; None if a side does not parse."""
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
    """Raises CannotApply if an edited file is not a valid resolution of the hunk."""
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
            "resolve and remove them, then run --continue again",
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
            "undo these changes; they belong in a patch of their own",
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
    error = syntax_error(data)
    return None if error is None else error.lineno
