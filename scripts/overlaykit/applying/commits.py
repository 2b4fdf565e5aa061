"""The series as commits: one for the new files, then one for each patch.

They are made from objects in a scratch index, so nothing is visible until the branch
is. Authors and dates come from the patch headers: the same series on the same base
gives the same commit ids everywhere, so a repeated ``--commit`` changes nothing.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from overlaykit.applying.branches import Switch, plan_switch, report_git_failure
from overlaykit.core import git
from overlaykit.core.errors import CannotApply, Finding
from overlaykit.core.objects import blob_id
from overlaykit.repository import clones
from overlaykit.repository.index import tree_entries
from overlaykit.repository.state import (
    Repository,
    branch_findings,
    cannot_commit,
    check_locks,
    index_findings,
    name_findings,
    open_repository,
    raise_if_any,
    unfinished_operation,
)
from overlaykit.series.carried import Carried
from overlaykit.series.patches import apply_hunks
from overlaykit.series.quilt import Header, read_header
from overlaykit.trees.tree import GitTree

NEW_FILES_SUBJECT = "Add the files that the series uses"


@dataclass(frozen=True)
class CommitStep:
    """A commit to make: its author, message and new file contents."""

    name: str
    address: str
    date: str
    message: str
    files: tuple[tuple[str, str, bytes], ...]


def new_files_message(carried: Carried) -> str:
    """The message of the commit, or patch, that adds the new files."""
    laid = "\n".join(new.path for new in carried.new_files)
    return f"{NEW_FILES_SUBJECT}\n\n{laid}\n"


def commit_steps(
    carried: Carried, contents: dict[str, bytes], modes: Mapping[str, str]
) -> Iterator[CommitStep]:
    """The commits of the series, starting from the pinned ``contents`` of its files;
    existing files keep their ``modes``."""
    headers: list[Header] = [read_header(patch) for patch in carried.series.patches]
    if carried.new_files:
        yield CommitStep(
            headers[0].name,
            headers[0].address,
            headers[0].date,
            new_files_message(carried),
            tuple((new.path, new.mode, new.data) for new in carried.new_files),
        )
    for patch, header in zip(carried.series.patches, headers, strict=True):
        files = []
        for diff in patch.files:
            after = apply_hunks(contents[diff.path], diff.hunks)
            assert after is not None
            contents[diff.path] = after
            files.append((diff.path, modes[diff.path], after))
        who = (header.name, header.address, header.date)
        yield CommitStep(*who, header.message, tuple(files))


def commit_series(clone: Path, base: str, carried: Carried) -> str:
    """Commit the series on top of ``base`` and return the last commit's id.

    Raises CannotApply if ``base`` does not contain the pinned files. No branch moves.
    """
    contents: dict[str, bytes] = {}
    with GitTree(clone, base) as tree, tempfile.TemporaryDirectory() as scratch:
        for path in carried.series.paths:
            data = tree.read(path)
            found = blob_id(data) if data is not None else "none"
            if data is None or found != carried.chains[path][0]:
                raise CannotApply(
                    f"{clone}: {base} does not contain the pinned files",
                    (
                        Finding(
                            "is not the pinned file",
                            path=path,
                            expected=f"blob {carried.chains[path][0]}",
                            found=f"blob {found}",
                            next_step="check out the pinned release first",
                        ),
                    ),
                )
            contents[path] = data
        env = {"GIT_INDEX_FILE": str(Path(scratch) / "index")}
        clones.run(clone, "read-tree", base, env=env)
        head = clones.text(clone, "rev-parse", f"{base}^{{commit}}")
        there = tree_entries(clone, base, carried.series.paths)
        modes = {path: entry.partition(" ")[0] for path, entry in there.items()}
        for step in commit_steps(carried, contents, modes):
            head = _commit(clone, head, step, env)
    return head


def _commit(clone: Path, parent: str, step: CommitStep, env: dict[str, str]) -> str:
    rows = []
    for path, mode, data in step.files:
        blob = clones.run(clone, "hash-object", "-w", "--stdin", stdin=data).stdout
        rows.append(f"{mode} {blob.decode().strip()}\t{path}\0")
    clones.run(
        clone, "update-index", "-z", "--add", "--index-info",
        stdin="".join(rows).encode(), env=env,
    )  # fmt: skip
    # A partial clone lacks the other files; their ids come from the base.
    tree = clones.text(clone, "write-tree", "--missing-ok", env=env)
    who = git.identity(step.name, step.address, step.date)
    made = clones.run(
        clone, "commit-tree", tree, "-p", parent, stdin=step.message.encode(), env=who
    )
    return made.stdout.decode().strip()


def check_branch(clone: Path, branch: str, tip: str) -> bool:
    """Whether ``branch`` is at ``tip`` already; False if there is no such branch.

    Raises CannotApply if the branch exists at another commit.
    """
    ref = f"refs/heads/{branch}"
    raise_if_any(clone, name_findings(clone, ref))
    found = clones.run(clone, "rev-parse", "--verify", "-q", ref, ok=(0, 1))
    old = found.stdout.decode().strip()
    if old and old != tip:
        raise CannotApply(
            f"{clone}: branch {branch} exists and is not this series",
            (
                Finding(
                    "the branch contains other commits",
                    path=ref,
                    expected=f"{tip}, or no such branch",
                    found=old,
                    next_step=f"rename or delete it (git branch -m {branch} ...)",
                ),
            ),
        )
    return bool(old)


def create_branch(clone: Path, branch: str, tip: str) -> None:
    """Create a branch."""
    # With "create", git refuses if another process has just created it.
    order = f"create refs/heads/{branch} {tip}\n".encode()
    clones.run(clone, "update-ref", "--stdin", stdin=order)


def check_clone(clone: Path, branch: str, carried: Carried) -> Repository:
    """The clone's repository, if a commit would lose nothing in it.

    Raises CannotApply if git has an unfinished operation, if there is staged or hidden
    work at a touched path, or if the branch cannot be checked out here;
    EnvironmentFailure if another git process holds a lock.
    """
    repository, ref = open_repository(clone), f"refs/heads/{branch}"
    check_locks(repository, ref)
    raise_if_any(clone, unfinished_operation(repository))
    commit = repository.commit_of("HEAD")
    if commit is None:
        finding = Finding(
            "names no commit yet",
            path="HEAD",
            expected="the pinned release, committed",
            found=f"{repository.head() or 'HEAD'}, unborn",
            next_step="commit the release first, or leave --commit out",
        )
        raise cannot_commit(clone, finding)
    there = tree_entries(clone, commit, carried.paths)
    allowed: dict[str, tuple[str | None, ...]] = {}
    for path in carried.series.paths:
        mode = there.get(path, carried.modes[path]).partition(" ")[0]
        allowed[path] = (there.get(path), f"{mode} {carried.chains[path][-1]}")
    for new in carried.new_files:
        laid = f"{new.mode} {blob_id(new.data)}"
        allowed[new.path] = (there.get(new.path), laid)
    raise_if_any(
        clone,
        (*branch_findings(repository, ref), *index_findings(clone, allowed)),
    )
    return repository


def prepare_commits(
    repository: Repository, branch: str, carried: Carried
) -> tuple[str, Switch | None]:
    """Make the commits, as objects without a reference; return the last one, and the
    switch that checks it out (None if it is checked out)."""
    clone = repository.clone
    with report_git_failure(clone, "nothing was changed"):
        tip = commit_series(clone, _base(repository, branch, carried), carried)
    check_branch(clone, branch, tip)
    return tip, plan_switch(repository, f"refs/heads/{branch}", tip, carried.paths)


def _base(repository: Repository, branch: str, carried: Carried) -> str:
    """The commit below the series: HEAD, or, if HEAD is ``branch``, the commit below
    the series' commits, so that a second ``--commit`` finds the first one's."""
    clone, base = repository.clone, "HEAD"
    if repository.head() == f"refs/heads/{branch}":
        base = f"HEAD~{len(carried.series.patches) + bool(carried.new_files)}"
    commit = repository.commit_of(base)
    if commit is None:
        finding = Finding(
            "has too few commits to be this series",
            path=f"refs/heads/{branch}",
            expected=f"a commit {base}",
            next_step=f"rename the branch (git branch -m {branch} ...), or fetch more "
            "history (git fetch --unshallow)",
        )
        raise cannot_commit(clone, finding)
    return commit
