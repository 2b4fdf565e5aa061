"""Decides which patch an edit belongs to.

The scope of the edit decides, from the syntax trees before and after it. If several
patches change that scope, the nearest lines decide, unless another patch has lines
nearby. In doubt there is no answer: no check could detect a wrong guess, because the
edited file is the same whichever patch contains the edit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from overlaykit.core.errors import Finding
from overlaykit.repository.merge import MergeStore
from overlaykit.series.carried import Carried
from overlaykit.series.patches import Change, apply_hunks, parse_patch
from overlaykit.series.scopes import ScopeMap, map_scopes
from overlaykit.trees.tree import Tree

_NEAR = 3
"""Lines of context: an edit this close to a patch's lines would share their hunk."""


@dataclass(frozen=True)
class Edit:
    """One change between the result of the series and the tree, and its scopes."""

    change: Change
    scopes: frozenset[str]

    @property
    def old_end(self) -> int:
        return self.change.old_line + len(self.change.removed)


@dataclass(frozen=True)
class FileChain:
    """A file as released and after each patch (``chain``), with the changes and scopes
    of each patch."""

    path: str
    mode: str
    chain: tuple[bytes, ...]
    changes: tuple[tuple[Change, ...], ...]
    scopes: tuple[frozenset[str], ...]


def file_chain(carried: Carried, release: Tree, path: str) -> FileChain:
    data = release.read(path)
    if data is None:
        raise ValueError(f"{release.name} does not contain {path}")
    chain = [data]
    changes, scopes = [], []
    diffs = {patch.name: diff.hunks for patch, diff in carried.series.diffs(path)}
    known = {patch.name: file.hunks for patch, file in carried.locked(path)}
    for patch in carried.series.patches:
        hunks = diffs.get(patch.name, ())
        after = apply_hunks(chain[-1], hunks)
        if after is None:
            raise ValueError(f"{release.name} is not the pin: {path}")
        chain.append(after)
        changes.append(tuple(change for hunk in hunks for change in hunk.changes))
        scopes.append(frozenset(h.scope for h in known.get(patch.name, ())))
    mode = carried.modes.get(path, "100644")
    return FileChain(path, mode, tuple(chain), tuple(changes), tuple(scopes))


def edits_of(file: FileChain, data: bytes, store: MergeStore) -> list[Edit]:
    """The edits of a file, from git's diff."""
    old, new = map_scopes(file.chain[-1]), map_scopes(data)
    assert old is not None and new is not None
    # With no context, git numbers an insertion by the line before; so use one line.
    diff = store.diff(file.path, file.mode, file.chain[-1], data, 1)
    [parsed] = parse_patch(file.path, diff).files
    return [
        Edit(
            change,
            _scopes(old, change.old_line, change.removed)
            | _scopes(new, change.new_line, change.added),
        )
        for hunk in parsed.hunks
        for change in hunk.changes
    ]


def _scopes(at: ScopeMap, line: int, lines: Sequence[bytes]) -> frozenset[str]:
    return frozenset(at.at(line + i) for i in range(len(lines)))


def owner_of(carried: Carried, file: FileChain, edit: Edit) -> int | None:
    """The patch that clearly owns an edit; None in doubt."""
    owners = [n for n, scopes in enumerate(file.scopes) if edit.scopes <= scopes]
    if len(owners) < 2:
        return owners[0] if owners else None
    spans = {n: _spans(file, n) for n in owners}
    within = [n for n in owners if any(_within(edit, *span) for span in spans[n])]
    if within:
        return within[0] if len(within) == 1 else None
    gaps = sorted((min(_gap(edit, *span) for span in spans[n]), n) for n in owners)
    # Another patch's lines must not be so near that they would share one hunk.
    if gaps[0][0] <= _NEAR and gaps[1][0] > 2 * _NEAR:
        return gaps[0][1]
    return None


def _spans(file: FileChain, patch: int) -> list[tuple[int, int]]:
    """The lines that a patch changes, as spans in the result of the whole series."""

    def now(line: int) -> int:
        for later in file.changes[patch + 1 :]:
            line += sum(
                len(change.added) - len(change.removed)
                for change in later
                if change.old_line + len(change.removed) <= line
            )
        return line

    return [
        (now(change.new_line), now(change.new_line + len(change.added)))
        for change in file.changes[patch]
    ]


def _within(edit: Edit, first: int, end: int) -> bool:
    """Whether an edit only changes a patch's lines, or adds lines between them."""
    line = edit.change.old_line
    if edit.change.removed:
        return first <= line and edit.old_end <= end
    return first < line < end


def _gap(edit: Edit, first: int, end: int) -> int:
    """The number of lines between an edit and a span."""
    return max(first - edit.old_end, edit.change.old_line - end, 0)


def unowned_finding(carried: Carried, file: FileChain, edit: Edit) -> Finding:
    owners = [
        patch.name
        for patch, scopes in zip(carried.series.patches, file.scopes, strict=True)
        if edit.scopes <= scopes
    ]
    known = sorted(frozenset().union(*file.scopes))
    return Finding(
        "an edit is in a scope that several patches change"
        if owners
        else "an edit is in a scope that no patch changes",
        path=file.path,
        line=edit.change.new_line,
        patch=", ".join(owners) or None,
        scope=", ".join(sorted(edit.scopes)),
        expected="an edit near the lines of only one patch"
        if owners
        else f"in {', '.join(known) or 'a file that the series changes'}",
        found=summary(edit.change),
        next_step="name the patch that it belongs to: "
        + (" or ".join(f"--into {name}" for name in owners) or "--into PATCH"),
    )


def summary(change: Change) -> str:
    """An edit in short: its size and its first line."""
    first = (change.added or change.removed)[0].decode(errors="replace").strip()
    return f"-{len(change.removed)} +{len(change.added)}: {first}"
