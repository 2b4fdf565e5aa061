"""``overlay.lock``: digests of everything that the manifest pins. Generated.

With the lock, comparing blob ids shows whether a file is as the series expects it or as
the series leaves it. That works on a clone, in site-packages and inside an image. A
landing that matches the blob ids needs no other proof: the scopes were checked when the
lock was made.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import msgspec

from overlaykit.core.documents import from_json, to_json
from overlaykit.core.errors import Finding, InputError
from overlaykit.core.gitnames import check_commit
from overlaykit.core.objects import Entry, blob_id, tree_id
from overlaykit.core.paths import check_name, check_path
from overlaykit.series.manifest import MANIFEST, Target
from overlaykit.series.patches import (
    FileDiff,
    Hunk,
    Patch,
    Places,
    apply_hunks,
    listed,
    split_lines,
)
from overlaykit.series.quilt import Header, NewFile, Series, read_header
from overlaykit.series.scopes import ScopeMap, map_scopes
from overlaykit.trees.tree import Tree

LOCK = "overlay.lock"
_FORMAT = 1
_MODES = ("100644", "100755")
_BLOB = re.compile(r"[0-9a-f]{40}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


class LockedHunk(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The one scope that contains all changed lines of a hunk, and its sites."""

    scope: str
    sites: tuple[str, ...]


class LockedFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A file before and after one patch (blob ids), with the patch's hunks in it."""

    path: str
    mode: str
    before: str
    after: str
    hunks: tuple[LockedHunk, ...]


class LockedPatch(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A patch file of the series."""

    name: str
    sha256: str
    files: tuple[LockedFile, ...]


class LockedNewFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A file that the overlay adds to the tree."""

    path: str
    mode: str
    blob: str


class LockedDist(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The wheel that the target's sources come from."""

    filename: str
    sha256: str
    size: int


class LockedTarget(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One target. ``tree`` is the git tree id of only the touched and new files.

    ``commit`` is the base's commit. If the base is a package too (``dist``), the lock
    was made only after both had the same touched files; it is null if the manifest
    names none and ``scripts/lock.py --clone`` has not found the tag's. ``dist`` is null
    if the base is no package.
    """

    tag: str | None
    commit: str | None
    dist: LockedDist | None
    new_files: tuple[LockedNewFile, ...]
    patches: tuple[LockedPatch, ...]
    tree: str


class Lock(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The contents of ``overlay.lock``; ``manifest`` is the sha256 of overlay.toml."""

    format: int
    manifest: str
    targets: dict[str, LockedTarget]


class TreeWithModes(Tree, Protocol):
    """A tree that knows the git modes of its files: a release or a commit."""

    def mode(self, path: str) -> str:
        """The git mode of a file in the tree."""


def manifest_digest(root: Path) -> str:
    """The sha256 of an overlay's manifest."""
    return hashlib.sha256((root / MANIFEST).read_bytes()).hexdigest()


def read_lock(root: Path) -> Lock | None:
    """The lock, even if it is stale; None if there is no lock.

    Raises InputError if the lock cannot be read. An unreadable lock is not treated as
    an empty one: that would silently pin everything again.
    """
    path = root / LOCK
    try:
        lock = from_json(path.read_bytes(), Lock)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _unreadable(path, str(error)) from error
    if lock.format != _FORMAT:
        raise _unreadable(path, f"format {lock.format}, expected {_FORMAT}")
    try:
        for target in lock.targets.values():
            _check(target)
    except InputError as error:
        raise _unreadable(path, error.message) from error
    return lock


def load_lock(root: Path) -> Lock:
    """Read the lock. Raises InputError if it is missing, stale or malformed."""
    path = root / LOCK
    again = Finding(
        "the lock does not match this overlay",
        path=LOCK,
        next_step="run scripts/lock.py, review the diff, commit it",
    )
    if (lock := read_lock(root)) is None:
        raise InputError(f"{path} does not exist", (again,))
    if lock.manifest != manifest_digest(root):
        what = f"{MANIFEST} changed since the lock was made"
        raise InputError(f"{path} is stale: {what}", (again,))
    return lock


def _unreadable(path: Path, what: str) -> InputError:
    finding = Finding(
        "cannot be read",
        path=LOCK,
        found=what,
        next_step=f"restore it from version control (git checkout -- {LOCK}; in a "
        f"conflict, git checkout --ours {LOCK}), then run scripts/lock.py",
    )
    return InputError(f"{path}: {what}", (finding,))


def check_dist(dist: LockedDist) -> None:
    """Raises InputError unless this is the name and the digest of a wheel."""
    check_name(dist.filename)
    if not dist.filename.endswith(".whl"):
        raise InputError(f"{dist.filename} is not the name of a wheel")
    if not _SHA256.fullmatch(dist.sha256):
        raise InputError(f"{dist.sha256!r} is not the sha256 of {dist.filename}")


def _check(target: LockedTarget) -> None:
    """Check every name and id: they become file names and arguments of git."""
    if target.dist is not None:
        check_dist(target.dist)
    if target.commit is not None:
        check_commit(target.commit)
    elif target.dist is None:
        raise InputError("a target has neither a package nor a commit")
    for patch in target.patches:
        check_name(patch.name)
    for path, mode, blobs in _locked_files(target):
        check_path(path)
        if mode not in _MODES or not all(map(_BLOB.fullmatch, blobs)):
            raise InputError(f"{path}: {mode}, {blobs} are not a mode and blob ids")


def _locked_files(
    target: LockedTarget,
) -> Iterator[tuple[str, str, tuple[str, ...]]]:
    for new in target.new_files:
        yield new.path, new.mode, (new.blob,)
    for patch in target.patches:
        for file in patch.files:
            yield file.path, file.mode, (file.before, file.after)


def encode_lock(lock: Lock) -> bytes:
    """The lock's bytes, as committed: one value a line, sorted, for readable diffs."""
    return to_json(lock, sort=True) + b"\n"


def new_lock(manifest: bytes, targets: dict[str, LockedTarget]) -> Lock:
    """A lock for a manifest with this text."""
    return Lock(_FORMAT, hashlib.sha256(manifest).hexdigest(), targets)


def with_commit(locked: LockedTarget, commit: str | None) -> LockedTarget:
    """The target with its base's commit."""
    return msgspec.structs.replace(locked, commit=commit)


def base_text(locked: LockedTarget) -> str:
    """A base as the lock records it: its wheel, its commit, or both."""
    names = (locked.dist.filename if locked.dist else None, locked.commit)
    return ", ".join(name for name in names if name is not None)


def pinned_blobs(locked: LockedTarget) -> dict[str, str]:
    """The blob id of each touched file in the base."""
    return {f.path: f.before for p in reversed(locked.patches) for f in p.files}


def stale_parts(
    target: Target,
    locked: LockedTarget,
    series: Series,
    new_files: tuple[NewFile, ...],
) -> str | None:
    """What changed in the base, ``patches/`` or ``overlay/`` since the lock; None if
    nothing."""
    if (target.dist is None) != (locked.dist is None):
        return "the kind of the base"
    if target.commit not in (None, locked.commit):
        return f"the commit of the base, {target.commit}"
    want = [(p.name, p.sha256) for p in locked.patches]
    have = [(p.name, p.sha256) for p in series.patches]
    if want != have:
        changed = [*dict(set(want) ^ set(have))] or ["the order of the series"]
        return ", ".join(sorted(changed))
    laid = {(f.path, f.mode, f.blob) for f in locked.new_files}
    files = {(f.path, f.mode, blob_id(f.data)) for f in new_files}
    if laid != files:
        return ", ".join(sorted({path for path, _, _ in laid ^ files}))
    return None


def lock_target(
    target: Target,
    tree: TreeWithModes,
    dist: LockedDist | None,
    series: Series,
    new_files: tuple[NewFile, ...],
    commit: str | None,
) -> LockedTarget:
    """Apply the series to the pin and record the result.

    Raises InputError if a patch does not fit the pin exactly, if a hunk's context is
    not unique in its file, or if a hunk changes more than one scope.
    """
    contents: dict[str, bytes] = {}
    modes: dict[str, str] = {}
    for path in series.paths:
        data = tree.read(path)
        if data is None:
            raise InputError(f"{tree.name} does not contain {path}")
        contents[path], modes[path] = data, tree.mode(path)
    for new in new_files:
        if tree.read(new.path) is not None:
            raise InputError(f"{new.path} is not a new file: {tree.name} contains it")
    patches = []
    for patch in series.patches:
        header = read_header(patch)
        files = []
        for diff in patch.files:
            before = contents[diff.path]
            after = _apply(patch, diff, before)
            hunks = _lock_hunks(patch, header, diff, before, after)
            files.append(
                LockedFile(diff.path, modes[diff.path], diff.before, diff.after, hunks)
            )
            contents[diff.path] = after
        _check_sites(patch, header, files)
        patches.append(LockedPatch(patch.name, patch.sha256, tuple(files)))
    laid = tuple(LockedNewFile(f.path, f.mode, blob_id(f.data)) for f in new_files)
    entries = {p: Entry(modes[p], blob_id(data)) for p, data in contents.items()}
    entries |= {f.path: Entry(f.mode, f.blob) for f in laid}
    return LockedTarget(
        target.tag, commit, dist, laid, tuple(patches), tree_id(entries)
    )


def _apply(patch: Patch, diff: FileDiff, before: bytes) -> bytes:
    remake = "re-make the patch against the pinned release"
    if blob_id(before) != diff.before:
        finding = Finding(
            "the index line names another file",
            path=diff.path,
            patch=patch.name,
            expected=f"blob {diff.before}",
            found=f"blob {blob_id(before)}",
            next_step=remake,
        )
        raise InputError(f"{patch.name} does not fit the pin", (finding,))
    places = Places(split_lines(before))
    for hunk in diff.hunks:
        twins = places.of(hunk.old)
        if twins != [hunk.old_start]:
            finding = Finding(
                "the context is not unique" if twins else "the context was not found",
                path=diff.path,
                line=hunk.old_start,
                patch=f"{patch.name}:{hunk.at}",
                hunk=hunk.number,
                expected=f"at line {hunk.old_start} and nowhere else",
                found=f"at lines {listed(twins)}",
                next_step="give the hunk more context" if twins else remake,
            )
            raise InputError(f"{patch.name} does not fit the pin", (finding,))
    after = apply_hunks(before, diff.hunks)
    if after is None or blob_id(after) != diff.after:
        raise InputError(
            f"{patch.name}: the index line promises blob {diff.after} for {diff.path}, "
            f"but the hunks give another. {remake[0].upper()}{remake[1:]}."
        )
    return after


def _lock_hunks(
    patch: Patch, header: Header, diff: FileDiff, before: bytes, after: bytes
) -> tuple[LockedHunk, ...]:
    old, new = map_scopes(before), map_scopes(after)
    if old is None or new is None:
        raise InputError(f"{patch.name}: {diff.path} does not parse as Python")
    scopes: list[str] = []
    for hunk in diff.hunks:
        found = hunk_scopes(hunk, old, new)
        if len(found) != 1:
            raise InputError(
                f"{patch.name}:{hunk.at}: hunk {hunk.number} changes lines in more "
                f"than one scope ({', '.join(sorted(found))}); split it"
            )
        scopes += found
    hunks = Counter(scopes)
    sites = {
        scope: iter(_spread(names, hunks[scope]))
        for scope, names in header.sites.items()
    }
    unnamed: Iterator[tuple[str, ...]] = iter(())
    return tuple(
        LockedHunk(scope, next(sites.get(scope, unnamed), ())) for scope in scopes
    )


def hunk_scopes(hunk: Hunk, old: ScopeMap, new: ScopeMap) -> set[str]:
    """The scopes of all lines that a hunk removes or adds."""
    return {
        old.at(change.old_line + i)
        for change in hunk.changes
        for i in range(len(change.removed))
    } | {
        new.at(change.new_line + i)
        for change in hunk.changes
        for i in range(len(change.added))
    }


def _spread(names: tuple[str, ...], hunks: int) -> list[tuple[str, ...]]:
    """A scope's sites, per hunk: one each if the numbers match, else all of them."""
    if len(names) == hunks:
        return [(name,) for name in names]
    return [names] * hunks


def _check_sites(patch: Patch, header: Header, files: list[LockedFile]) -> None:
    scopes = {hunk.scope for file in files for hunk in file.hunks}
    for scope in header.sites:
        if scope not in scopes:
            raise InputError(
                f"{patch.name}: X-Sites names {scope}, which no hunk changes; "
                f"its hunks change {', '.join(sorted(scopes))}"
            )
