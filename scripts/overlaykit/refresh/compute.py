"""Computes the series for a tree that was edited after the series was applied.

Each edit is merged into the contents that its own patch leaves, and the later patches
are merged on top. The result must be the edited file, byte for byte: that reveals a
merge that put something in another place.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from overlaykit.core.errors import CannotApply, Finding, InputError
from overlaykit.refresh.edits import Edits
from overlaykit.refresh.ownership import (
    Edit,
    FileChain,
    edits_of,
    file_chain,
    owner_of,
    summary,
    unowned_finding,
)
from overlaykit.repository.merge import MergeStore
from overlaykit.series.carried import Carried
from overlaykit.series.patches import split_lines
from overlaykit.series.quilt import NewFile, Series, read_header
from overlaykit.series.remake import Contents, remake, with_sites
from overlaykit.trees.tree import Tree

FindSites = Callable[[str, str], tuple[str, ...]]
"""Returns the sites that a contract knows in a scope of a file."""


@dataclass(frozen=True)
class PlacedEdit:
    """An edit: its place in the tree, and the patch that it went into."""

    path: str
    line: int
    scope: str
    patch: str
    removed: int
    added: int


@dataclass(frozen=True)
class Refreshed:
    """The new series and new files, with the edits that went into patches."""

    series: Series
    new_files: tuple[NewFile, ...]
    placed: tuple[PlacedEdit, ...]


def refresh(
    carried: Carried, edits: Edits, release: Tree, into: str | None, sites: FindSites
) -> Refreshed:
    """Compute the series that leaves the edited tree.

    ``into`` names the patch for edits whose owner is unclear. Raises CannotApply if an
    edit has no owner, if a later patch changes the same lines, or if the result would
    differ from the tree's file.
    """
    forced = None if into is None else _index(carried, into)
    files = {
        path: file_chain(carried, release, path)
        for path in dict.fromkeys((*carried.series.paths, *edits.changed))
    }
    chains = {path: file.chain for path, file in files.items()}
    placed: list[PlacedEdit] = []
    refused: list[Finding] = []
    with MergeStore() as store:
        for path, data in edits.changed.items():
            owned: list[tuple[Edit, int]] = []
            for edit in edits_of(files[path], data, store):
                owner = owner_of(carried, files[path], edit)
                owner = forced if owner is None else owner
                if owner is None:
                    refused.append(unowned_finding(carried, files[path], edit))
                else:
                    owned.append((edit, owner))
                    placed.append(_placed_edit(carried, path, edit, owner))
            if not refused:
                chains[path] = _chain_with_edits(
                    carried, files[path], data, owned, store
                )
        if refused:
            message = "it is unclear which patches the edits belong to"
            raise CannotApply(message, tuple(refused))
        series = _remade(carried, files, chains, placed, sites, store)
    laid = {new.path: new for new in (*carried.new_files, *edits.new_files)}
    return Refreshed(series, tuple(laid[path] for path in sorted(laid)), tuple(placed))


def _index(carried: Carried, name: str) -> int:
    names = [patch.name for patch in carried.series.patches]
    if name in names:
        return names.index(name)
    step = f"name one of {', '.join(names)}"
    finding = Finding(f"is not a patch of {carried.name}", path=name, next_step=step)
    raise InputError(f"patch {name} does not exist", (finding,))


def _placed_edit(carried: Carried, path: str, edit: Edit, owner: int) -> PlacedEdit:
    return PlacedEdit(
        path,
        edit.change.new_line,
        ", ".join(sorted(edit.scopes)),
        carried.series.patches[owner].name,
        len(edit.change.removed),
        len(edit.change.added),
    )


def _chain_with_edits(
    carried: Carried,
    file: FileChain,
    data: bytes,
    owned: Sequence[tuple[Edit, int]],
    store: MergeStore,
) -> tuple[bytes, ...]:
    """The file after each patch, including the edits."""

    def merge(base: bytes, ours: bytes, theirs: bytes) -> bytes | None:
        if theirs in (base, ours):
            return ours
        if ours == base:
            return theirs
        path = file.path
        merged = store.merge({path: base}, {path: ours}, {path: theirs})
        return None if merged.conflicts else merged.files[path]

    chain, last = [file.chain[0]], file.chain[-1]
    for number, (before, after) in enumerate(
        zip(file.chain, file.chain[1:], strict=False)
    ):
        mine = [edit for edit, owner in owned if owner == number]
        now = merge(before, chain[-1], after)
        below = merge(last, after, _with(last, mine))
        result = merge(after, now, below) if now is not None and below else None
        if result is None:
            earlier = [edit for edit, owner in owned if owner <= number]
            raise _inseparable(carried, file, number, mine or earlier)
        chain.append(result)
    if chain[-1] != data:
        raise _inseparable(carried, file, len(file.scopes) - 1, [e for e, _ in owned])
    return tuple(chain)


def _with(data: bytes, edits: Sequence[Edit]) -> bytes:
    """The contents that the series leaves, with only these edits."""
    lines = split_lines(data)
    for edit in reversed(edits):
        lines[edit.change.old_line - 1 : edit.old_end - 1] = edit.change.added
    return b"".join(lines)


def _inseparable(
    carried: Carried, file: FileChain, patch: int, edits: Sequence[Edit]
) -> CannotApply:
    touching = [
        p.name
        for p, changes in zip(carried.series.patches, file.changes, strict=True)
        if changes
    ]
    name = carried.series.patches[patch].name
    findings = tuple(
        Finding(
            "an edit cannot be separated from the lines of another patch",
            path=file.path,
            line=edit.change.new_line,
            patch=name,
            scope=", ".join(sorted(edit.scopes)),
            expected=f"the regenerated {', '.join(touching)} leave exactly this file",
            found=summary(edit.change),
            next_step="put the edit into the patch file by hand, then run make lock",
        )
        for edit in edits
    )
    return CannotApply(f"{file.path} cannot be carried through the series", findings)


def _remade(
    carried: Carried,
    files: Mapping[str, FileChain],
    chains: Mapping[str, tuple[bytes, ...]],
    placed: Sequence[PlacedEdit],
    sites: FindSites,
    store: MergeStore,
) -> Series:
    known = {
        site
        for patch in carried.series.patches
        for names in read_header(patch).sites.values()
        for site in names
    }
    patches = []
    for number, patch in enumerate(carried.series.patches):
        changes = {
            path: Contents(files[path].mode, chain[number], chain[number + 1])
            for path, chain in chains.items()
            if chain[number] != chain[number + 1]
        }
        if all(
            chain[number : number + 2] == files[path].chain[number : number + 2]
            for path, chain in chains.items()
        ):
            patches.append(patch)
            continue
        if not changes:
            raise CannotApply(f"{patch.name} would no longer change anything", (
                Finding(
                    "the tree reverts all of its changes",
                    patch=patch.name,
                    next_step="remove it from the series, or restore a part of it",
                ),
            ))  # fmt: skip
        added = {
            one.scope: tuple(s for s in sites(one.path, one.scope) if s not in known)
            for one in placed
            if one.patch == patch.name
            and one.scope not in files[one.path].scopes[number]
        }
        header = with_sites(patch.header, {s: n for s, n in added.items() if n})
        patches.append(remake(patch.name, header, changes, store))
    return Series(tuple(patches))
