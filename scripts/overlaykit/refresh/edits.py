"""Finds the edits in a tree that the series was applied to.

On a clone, git lists the files that differ from the release's commit, and those that
are untracked and not ignored. Any other tree is compared, file by file, with the
release's package.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum

from overlaykit.core import git
from overlaykit.core.errors import CannotApply, Finding
from overlaykit.core.objects import blob_id
from overlaykit.core.syntax import syntax_error
from overlaykit.planning.plan import Standing, locate
from overlaykit.refresh.ownership import file_chain
from overlaykit.repository import clones
from overlaykit.repository.sparse import LEFT_OUT, skip_worktree_steps
from overlaykit.series.carried import Carried
from overlaykit.series.lock import TreeWithModes, base_text
from overlaykit.series.patches import split_lines
from overlaykit.series.quilt import NewFile
from overlaykit.series.scopes import map_scopes
from overlaykit.trees.locking import FOLDER
from overlaykit.trees.tree import DirectoryTree, GitTree

_HISTORY = "256"


class _Kind(Enum):
    """A file that is in the package, one that is only in the repository or differs
    there, or one that upstream does not have."""

    PINNED = 1
    OTHER = 2
    NEW = 3


@dataclass(frozen=True)
class Edits:
    """Edited files of the release with their contents, edited and added new files, and
    the files that are left alone, with the reason."""

    changed: dict[str, bytes]
    new_files: tuple[NewFile, ...]
    left_alone: tuple[str, ...]


def find_edits(carried: Carried, tree: DirectoryTree, release: TreeWithModes) -> Edits:
    """Compare a tree with the result of the series. Writes nothing.

    Raises CannotApply if the series is not applied, and for edits that a series cannot
    carry.
    """
    _check_applied(carried, tree)
    laid = {new.path: new for new in carried.new_files}
    changed: dict[str, bytes] = {}
    new_files: list[NewFile] = []
    left_alone: list[str] = []
    refused: list[Finding] = []
    missing: list[str] = []
    names = dict.fromkeys((*carried.series.paths, *laid), _Kind.PINNED)
    for path, kind in {**_names(carried, tree, release), **names}.items():
        if not tree.holds(path):
            continue
        data = tree.read(path)
        if data is None:
            missing.append(path)
        elif path in laid:
            if (mode := _mode(tree, path)) != laid[path].mode:
                refused.append(_other_mode(path, laid[path].mode, mode))
            if data != laid[path].data:
                new_files.append(NewFile(path, mode, data))
        elif path in carried.chains:
            if blob_id(data) != carried.chains[path][-1]:
                changed[path] = data
                refused += _unpatchable(path, data)
        elif release.read(path) == data:
            continue
        elif kind is _Kind.PINNED:
            changed[path] = data
            refused += _unpatchable(path, data)
        elif kind is _Kind.OTHER:
            refused.append(_outside(path, carried))
        elif release.read(path) is not None:
            left_alone.append(f"{path}: the package generates this file")
        elif _is_text(data):
            new_files.append(NewFile(path, _mode(tree, path), data))
        else:
            left_alone.append(f"{path}: not text")
    refused += _missing(tree, missing, laid)
    if refused:
        message = f"{tree.name} has edits that a series cannot carry"
        raise CannotApply(message, tuple(refused))
    return Edits(changed, tuple(new_files), tuple(left_alone))


def distance(carried: Carried, tree: DirectoryTree, release: TreeWithModes) -> int:
    """The number of lines that differ from the result of the series."""
    lines = 0
    for path in carried.series.paths:
        ours = Counter(split_lines(file_chain(carried, release, path).chain[-1]))
        theirs = Counter(split_lines(tree.read(path) or b""))
        lines += ((ours - theirs) + (theirs - ours)).total()
    return lines


def _names(
    carried: Carried, tree: DirectoryTree, release: TreeWithModes
) -> dict[str, _Kind]:
    """The files that may be edited."""
    if git.top_of_clone(tree.root) is not None:
        return dict(_by_git(carried, tree, release))
    root = f"{carried.target.package_root}/"
    there = (path for path in tree.paths() if path.startswith(root))
    new = (path for path in there if not path.endswith((".pyc", ".pyo")))
    pinned = dict.fromkeys(release.paths(), _Kind.PINNED)
    return {**dict.fromkeys(new, _Kind.NEW), **pinned}


def _by_git(
    carried: Carried, tree: DirectoryTree, release: TreeWithModes
) -> Iterator[tuple[str, _Kind]]:
    untracked = clones.run(
        tree.root, "ls-files", "-o", "--exclude-standard", "-z"
    ).stdout
    for path in filter(None, os.fsdecode(untracked).split("\0")):
        # A name that ends with a slash is a nested repository.
        if not path.startswith(f"{FOLDER}/") and not path.endswith("/"):
            yield path, _Kind.NEW
    if (base := _base(carried, tree)) is None:
        return
    said = clones.run(
        tree.root, "diff", "--name-only", "--no-renames", "--no-ext-diff",
        "--ignore-submodules=all", "-z", base, "--",
    ).stdout  # fmt: skip
    with GitTree(tree.root, base) as upstream:
        for path in filter(None, os.fsdecode(said).split("\0")):
            was = upstream.read(path)
            pinned = _Kind.PINNED if was == release.read(path) else _Kind.OTHER
            yield path, _Kind.NEW if was is None else pinned


def _base(carried: Carried, tree: DirectoryTree) -> str | None:
    """The newest ancestor of HEAD with the release's touched files, so that committed
    edits count too. HEAD if no such commit is near; None without a commit."""
    head = clones.run(tree.root, "rev-parse", "--verify", "-q", "HEAD", ok=(0, 1, 128))
    if head.returncode:
        return None
    touching = clones.text(
        tree.root, "rev-list", f"-n{_HISTORY}", "--parents", "HEAD", "--",
        *carried.series.paths,
    )  # fmt: skip
    parents = (line.split()[1:] for line in touching.splitlines())
    for commit in ("HEAD", *(parent for line in parents for parent in line)):
        with GitTree(tree.root, commit) as at:
            if all(
                blob_id(at.read(path) or b"") == chain[0]
                for path, chain in carried.chains.items()
            ):
                return commit
    return "HEAD"


def _check_applied(carried: Carried, tree: DirectoryTree) -> None:
    """Raises CannotApply if a file lacks patches, or no patch is applied."""
    position = locate(carried, tree)
    findings = [
        Finding(
            f"{step} of its {len(carried.chains[path]) - 1} patches are applied",
            path=path,
            expected="the file with the whole series, edited or not",
            found=f"blob {carried.chains[path][step]}",
            next_step="apply the series first (scripts/apply.py), then edit",
        )
        for path, step in position.steps.items()
        if step < len(carried.chains[path]) - 1
    ]
    if position.standing(carried) is Standing.PRISTINE or findings:
        message = f"{tree.name}: the series is not applied"
        raise CannotApply(message, tuple(findings))


def _unpatchable(path: str, data: bytes) -> list[Finding]:
    """Why a patch cannot leave an edited file."""
    line: int | None
    if b"\r" in data:
        line = data[: data.index(b"\r")].count(b"\n") + 1
        what, step = "has a carriage return", "save it with LF line endings"
    elif map_scopes(data) is None:
        line, what = _syntax_error(data)
        step = "correct the syntax: scopes decide which patch an edit belongs to"
    else:
        return []
    return [Finding(what, path=path, line=line, next_step=step)]


def _syntax_error(data: bytes) -> tuple[int | None, str]:
    error = syntax_error(data)
    if error is None:
        return None, "does not parse"
    return error.lineno, f"does not parse: {error.msg}"


def _missing(
    tree: DirectoryTree, paths: Sequence[str], laid: Collection[str]
) -> Iterator[Finding]:
    """A file that git left out of the work tree was not deleted."""
    left_out = skip_worktree_steps(tree.root, paths)
    for path in paths:
        if path in left_out:
            what = f"does not exist: {LEFT_OUT}"
            yield Finding(what, path=path, next_step=left_out[path])
        else:
            yield _deleted(path, path in laid)


def _deleted(path: str, is_laid: bool) -> Finding:
    step = "restore it; a series cannot delete a file"
    if is_laid:
        step = "restore it, or delete it in overlay/ and run make lock"
    return Finding("was deleted", path=path, next_step=step)


def _other_mode(path: str, was: str, now: str) -> Finding:
    step = "change the mode back, or change it in overlay/ and run make lock"
    return Finding(
        "has another mode", path=path, expected=was, found=now, next_step=step
    )


def _outside(path: str, carried: Carried) -> Finding:
    return Finding(
        "was edited, but differs from the pinned base even without the edit",
        path=path,
        expected=f"edits of files in {base_text(carried.lock)}",
        next_step="undo the edit: the base cannot verify a patch of this file",
    )


def _mode(tree: DirectoryTree, path: str) -> str:
    return "100755" if tree.locate(path).stat().st_mode & 0o100 else "100644"


def _is_text(data: bytes) -> bool:
    try:
        return "\0" not in data.decode()
    except UnicodeDecodeError:
        return False
