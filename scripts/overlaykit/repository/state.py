"""Unfinished work in a clone that a commit must not overwrite.

A rebase, a conflict or a staged edit exists only in HEAD, the index and a few files of
the git directory. A commit that moves HEAD would lose it silently, so each is refused
by name. This module only reads.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from overlaykit.core.errors import CannotApply, Finding
from overlaykit.core.wording import quoted
from overlaykit.repository import clones
from overlaykit.repository.index import LOCK, lock_held, read_entries
from overlaykit.repository.places import clone_location
from overlaykit.repository.sparse import SKIP_WORKTREE, restore_step

_OPERATIONS = (
    ("rebase-merge", "a rebase", "git rebase --abort or --continue"),
    ("rebase-apply/applying", "git am", "git am --abort or --continue"),
    ("rebase-apply", "a rebase", "git rebase --abort or --continue"),
    ("MERGE_HEAD", "a merge", "git merge --abort or --continue"),
    ("CHERRY_PICK_HEAD", "a cherry-pick", "git cherry-pick --abort or --continue"),
    ("REVERT_HEAD", "a revert", "git revert --abort or --continue"),
    (
        "sequencer/todo",
        "a cherry-pick or revert of several commits",
        "git cherry-pick --abort or --continue (or git revert)",
    ),
    ("BISECT_LOG", "a bisection", "git bisect reset"),
    ("BISECT_START", "a bisection", "git bisect reset"),
)
_ASSUMED = "is marked assume-unchanged: git does not look at the file"

_WHOSE = ("HEAD", "the series")


@dataclass(frozen=True)
class Repository:
    """A clone: its top, its own git directory, and the one that worktrees share."""

    clone: Path
    folder: Path
    common: Path

    def head(self) -> str:
        """The ref that HEAD names, or the commit id if HEAD is detached."""
        found = clones.run(self.clone, "symbolic-ref", "-q", "HEAD", ok=(0, 1))
        return found.stdout.decode().strip() or self.commit_of("HEAD") or ""

    def commit_of(self, ref: str) -> str | None:
        """The commit that a ref names; None if it names no commit."""
        found = clones.run(
            self.clone, "rev-parse", "--verify", "-q", f"{ref}^{{commit}}", ok=(0, 1)
        )
        return found.stdout.decode().strip() or None

    def other_worktree_of(self, ref: str) -> str | None:
        """The other worktree that has a branch checked out, or is rebasing it."""
        for name, folder in self._worktrees():
            if folder == self.folder:
                continue
            shown = clones.run(
                self.clone, "symbolic-ref", "-q", f"{name}/HEAD", ok=(0, 1, 128)
            )
            heads = [os.fsdecode(shown.stdout).strip()]
            for left in ("rebase-merge/head-name", "rebase-apply/head-name"):
                if (folder / left).is_file():
                    heads.append((folder / left).read_text().strip())
            if ref in heads:
                return _worktree_path(folder)
        return None

    def _worktrees(self) -> Iterator[tuple[str, Path]]:
        """All worktrees, also those that are gone from disk: git's name for their refs,
        and their git directories."""
        yield "main-worktree", self.common
        for folder in sorted((self.common / "worktrees").glob("*")):
            yield f"worktrees/{folder.name}", folder


def open_repository(clone: Path) -> Repository:
    """The repository of a work tree. Raises CannotApply for a bare one."""
    at = clone_location(clone)
    if at.top is None:
        finding = Finding(
            "is not the work tree of its repository",
            path=str(clone / ".git"),
            expected=f"a repository whose work tree is {clone}",
            found="bare (core.bare)",
            next_step="name a work tree of it, or make one: git worktree add",
        )
        raise cannot_commit(clone, finding)
    return Repository(clone, at.git_dir.resolve(), at.common.resolve())


def check_locks(repository: Repository, ref: str) -> None:
    """Raise EnvironmentFailure if another git process holds a lock that we need."""
    places = (
        repository.folder / LOCK,
        repository.folder / "HEAD.lock",
        repository.common / f"{ref}.lock",
        repository.common / "packed-refs.lock",
        repository.common / "reftable" / "tables.list.lock",
    )
    if there := [place for place in places if place.exists()]:
        raise lock_held(there)


def unfinished_operation(repository: Repository) -> tuple[Finding, ...]:
    """A finding for the operation that git has not finished, such as a rebase."""
    for name, what, step in _OPERATIONS:
        if (place := repository.folder / name).exists() or _pseudo_ref_exists(
            repository, name
        ):
            return (
                Finding(
                    f"{what} is under way",
                    path=str(place),
                    expected="no unfinished operation",
                    next_step=f"{step}; then run this again",
                ),
            )
    return ()


def branch_findings(repository: Repository, ref: str) -> tuple[Finding, ...]:
    """Reasons why a branch cannot be created or checked out here."""
    found = []
    if place := repository.other_worktree_of(ref):
        found.append(
            Finding(
                "is checked out in another worktree",
                path=ref,
                expected="a branch that no other worktree has checked out",
                found=place,
                next_step="switch away from it there (git switch --detach, or end the "
                "rebase), or remove that worktree (git worktree remove, git worktree "
                "prune if it is gone); then run this again",
            )
        )
    return (*found, *name_findings(repository.clone, ref))


def name_findings(clone: Path, ref: str) -> tuple[Finding, ...]:
    """Reasons why a branch of this name cannot be created."""
    steps = [str(p) for p in PurePosixPath(ref).parents if len(p.parts) > 2]
    listed = clones.text(clone, "for-each-ref", "--format=%(refname)", ref, *steps)
    for name in listed.splitlines():
        if name in steps or name.startswith(f"{ref}/"):
            return (
                Finding(
                    "conflicts with the branch's name",
                    path=name,
                    expected=f"{ref}, which git cannot have beside {name}",
                    next_step="rename it: git branch -m "
                    f"{name.removeprefix('refs/heads/')} NEW-NAME",
                ),
            )
    link = (
        clones.run(clone, "symbolic-ref", "-q", ref, ok=(0, 1)).stdout.decode().strip()
    )
    if link:
        return (
            Finding(
                "is a symbolic ref",
                path=ref,
                expected="a branch of its own, or none",
                found=f"-> {link}",
                next_step=f"git symbolic-ref --delete {ref}",
            ),
        )
    return ()


def index_findings(
    clone: Path, allowed: Mapping[str, Sequence[str | None]]
) -> tuple[Finding, ...]:
    """Index entries that would be lost: all unmerged entries, and at the paths in
    ``allowed`` every entry that is not in the path's list (None: no entry)."""
    entries = read_entries(clone)
    if unmerged := sorted({entry.path for entry in entries if entry.stage}):
        return tuple(
            Finding(
                "is unmerged",
                path=path,
                expected="no conflicts in the index",
                next_step="resolve it and git add it, or git checkout HEAD -- it",
            )
            for path in unmerged[:5]
        )
    by_path = {entry.path: entry for entry in entries}
    found = []
    for path, blobs in allowed.items():
        entry = by_path.get(path)
        if entry is not None and entry.tag.upper() != "H":
            found.append(_marked(path, SKIP_WORKTREE, restore_step(clone, path)))
        elif entry is not None and entry.tag != "H":
            step = f"git update-index --no-assume-unchanged -- {quoted(path)}"
            found.append(_marked(path, _ASSUMED, step))
        elif (blob := entry.blob if entry else None) not in blobs:
            found.append(_staged(path, blobs, blob))
    return (*found, *_in_the_way(by_path, allowed))


def _in_the_way(
    entries: Mapping[str, object], paths: Mapping[str, object]
) -> Iterator[Finding]:
    """Entries that are a file where a path needs a folder, or the reverse."""
    folders = {
        str(folder) for path in paths for folder in PurePosixPath(path).parents
    } & entries.keys()
    as_folders = tuple(f"{path}/" for path in paths)
    below = {entry for entry in entries if entry.startswith(as_folders)}
    for path in sorted(folders | below):
        yield Finding(
            "is staged where the series has a "
            + ("folder" if path in folders else "file"),
            path=path,
            expected="no such entry in the index",
            next_step=f"git rm --cached -r -- {quoted(path)}, or commit elsewhere",
        )


def _marked(path: str, what: str, step: str) -> Finding:
    return Finding(what, path=path, expected="a plain entry", next_step=step)


def _staged(path: str, blobs: Sequence[str | None], found: str | None) -> Finding:
    names = [blob or "no entry" for blob in dict.fromkeys(blobs)]
    names = [f"{name} ({whose})" for name, whose in zip(names, _WHOSE, strict=False)]
    return Finding(
        "has a staged change",
        path=path,
        expected=" or ".join(names),
        found=found or "no entry",
        next_step="commit it (git commit) or unstage it (git restore --staged "
        f"-- {quoted(path)}); git diff --cached shows it",
    )


def raise_if_any(clone: Path, findings: Sequence[Finding]) -> None:
    """Raise CannotApply if there are findings."""
    if findings:
        raise cannot_commit(clone, *findings)


def cannot_commit(clone: Path, *findings: Finding) -> CannotApply:
    """The error for a clone that cannot be committed to."""
    first = findings[0]
    where = f"{first.path} " if first.path and "under way" not in first.what else ""
    return CannotApply(
        f"{clone}: cannot commit: {where}{first.what}; nothing was changed",
        findings,
    )


def _pseudo_ref_exists(repository: Repository, name: str) -> bool:
    """Whether a pseudo-ref exists; with reftable it is a ref, not a file."""
    if not name.endswith("_HEAD") or not (repository.common / "reftable").exists():
        return False
    return repository.commit_of(name) is not None


def _worktree_path(folder: Path) -> str:
    """The worktree of a git directory; the directory itself if it names none."""
    pointer = folder / "gitdir"
    if pointer.is_file():
        return pointer.read_text(errors="replace").strip().removesuffix("/.git")
    return str(folder.parent if folder.name == ".git" else folder)
