"""Changing a clone's branch, HEAD and index as a part of a tree's transaction.

Everything that can fail is done first, and changes nothing visible: the commits are
objects without a reference, and the new index is a file in the transaction's folder.
Three steps remain (create the branch, move HEAD, rename the index). They run while
``index.lock`` is held, which keeps git's own commands out. The journal records the old
and new state of each, so that the next process can undo them after a crash.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec

from overlaykit.core.errors import CannotApply, EnvironmentFailure, Finding, InputError
from overlaykit.core.paths import check_path
from overlaykit.core.wording import quoted
from overlaykit.repository import clones
from overlaykit.repository.index import (
    prepare_index,
    read_entries,
    release_lock,
    replace_index,
    set_entries,
    take_lock,
    tree_entries,
)
from overlaykit.repository.state import (
    Repository,
    check_locks,
    open_repository,
    raise_if_any,
    unfinished_operation,
)
from overlaykit.trees.locking import signals_blocked

BRANCHES = "refs/heads/"
_INDEX = "new-index"


class IndexRow(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An index entry before and after: mode and object id (null: no entry)."""

    path: str
    before: str | None
    after: str


class Switch(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A clone's change of branch. ``made``: the branch is new; ``head``: the old HEAD,
    a ref or a commit id; ``commit``: the commit of the old HEAD."""

    branch: str
    tip: str
    made: bool
    head: str
    commit: str
    rows: tuple[IndexRow, ...]

    def check(self) -> None:
        """Check the values, which may come from a forged journal. Raises InputError."""
        for ref in (self.branch, self.head):
            if not (_is_id(ref) and ref == self.head) and (
                not ref.startswith("refs/") or any(c in ref for c in " \0\n~^:?*[\\")
            ):
                raise InputError(f"{ref!r} is not a branch name")
        if not self.branch.startswith(BRANCHES):
            raise InputError(f"{self.branch!r} is not a branch name")
        for row in self.rows:
            check_path(row.path)
        blobs = [b for row in self.rows for b in (row.before, row.after) if b]
        for oid in (self.tip, self.commit, *(blob.partition(" ")[2] for blob in blobs)):
            if not _is_id(oid):
                raise InputError(f"{oid!r} is not an object id")


def plan_switch(
    repository: Repository, branch: str, tip: str, paths: Iterable[str]
) -> Switch | None:
    """The switch to ``branch`` at ``tip``; None if it is the current branch."""
    head, commit = repository.head(), repository.commit_of("HEAD")
    if head == branch or commit is None:
        return None
    after = tree_entries(repository.clone, tip, paths)
    before = {entry.path: entry.blob for entry in read_entries(repository.clone)}
    return Switch(
        branch,
        tip,
        repository.commit_of(branch) is None,
        head,
        commit,
        tuple(IndexRow(path, before.get(path), blob) for path, blob in after.items()),
    )


class Switcher:
    """Carries out a switch, or undoes it."""

    def __init__(
        self, clone: Path, folder: Path, switch: Switch, keep: Sequence[int]
    ) -> None:
        """``folder`` is the transaction's folder; ``keep`` are its lock's handles."""
        self._switch = switch
        self._new = folder / _INDEX
        self._keep = keep
        self._repository: Repository = open_repository(clone)
        self._clone = clone
        self._made_from = ""
        # Whether a step was begun; a later process must assume so.
        self._begun = True

    def stage(self) -> None:
        """Write the new index to the transaction's folder."""
        self._begun = False
        rows = {row.path: row.after for row in self._switch.rows}
        folder = self._repository.folder
        with report_git_failure(self._clone, "nothing was changed"):
            self._made_from = prepare_index(
                self._clone, folder, self._new, rows, self._keep
            )

    def lock(self) -> None:
        """Take git's lock, and check that nothing has changed since the switch was
        planned. Raises EnvironmentFailure or CannotApply."""
        switch, repository = self._switch, self._repository
        check_locks(repository, switch.branch)
        take_lock(repository.folder, self._new, self._made_from)
        raise_if_any(self._clone, unfinished_operation(repository))
        now = (repository.head(), repository.commit_of("HEAD"))
        if now != (switch.head, switch.commit):
            raise CannotApply(
                f"{self._clone}: HEAD was moved while the transaction was under way",
                (
                    Finding(
                        "was just changed by another process",
                        path="HEAD",
                        expected=f"{switch.head} at {switch.commit}",
                        found=f"{now[0]} at {now[1]}",
                        next_step="find out what runs git in this clone, then run "
                        "this again",
                    ),
                ),
            )

    def carry_out(self) -> None:
        """Create the branch, move HEAD, replace the index."""
        switch = self._switch
        self._begun = True
        # Ctrl-C would kill git too, and its lock would stay.
        with signals_blocked(), report_git_failure(self._clone, "nothing was changed"):
            order = "create" if switch.made else "verify"
            self._write(
                "update-ref", "--stdin", "-m", "overlay: apply --commit",
                stdin=f"{order} {switch.branch} {switch.tip}\n",
            )  # fmt: skip
            was = switch.head.removeprefix(BRANCHES)
            why = f"overlay: moving from {was} to {switch.branch[len(BRANCHES) :]}"
            self._write("symbolic-ref", "-m", why, "HEAD", switch.branch)
        # If another worktree takes the branch at the same time, at least one notices.
        if place := self._repository.other_worktree_of(switch.branch):
            finding = Finding(
                "was just checked out in another worktree",
                path=switch.branch,
                found=place,
                next_step="use that worktree, or switch it to another branch",
            )
            raise CannotApply(f"{self._clone}: the branch is taken", (finding,))
        replace_index(self._repository.folder)

    def roll_back(self) -> None:
        """Undo the steps that were made. May itself be killed and rerun.

        Raises CannotApply if the branch, HEAD or the index has changed since.
        """
        release_lock(self._repository.folder)
        if not self._begun:
            return
        switch = self._switch
        head, value = self._repository.head(), self._repository.commit_of(switch.branch)
        rows = {row.path: row for row in self._switch.rows}
        entries: dict[str, str | None] = dict.fromkeys(rows)
        for entry in read_entries(self._clone):
            if entry.path in rows:
                entries[entry.path] = f"{entry.blob}" if not entry.stage else "unmerged"
        self._check_ours(head, value, entries)
        state = "it is half committed, and the next run rolls it back"
        with report_git_failure(self._clone, state):
            if head == switch.branch and switch.head != switch.branch:
                self._move_back()
            if (
                switch.made
                and value
                and not self._repository.other_worktree_of(switch.branch)
            ):
                self._write("update-ref", "-d", switch.branch, switch.tip)
            undo = {p: r.before for p, r in rows.items() if entries[p] != r.before}
            if undo:
                set_entries(self._clone, undo, keep=self._keep)

    def _check_ours(
        self, head: str, value: str | None, entries: Mapping[str, str | None]
    ) -> None:
        switch = self._switch
        branch = (switch.tip, None) if switch.made else (switch.tip,)
        states = [
            ("HEAD", head, (switch.head, switch.branch)),
            (switch.branch, value, branch),
            *(
                (f"{row.path} in the index", entries[row.path], (row.before, row.after))
                for row in switch.rows
            ),
        ]
        for what, found, known in states:
            if found not in known:
                raise CannotApply(
                    f"{self._clone}: cannot roll back an interrupted transaction",
                    (
                        Finding(
                            "was changed by another process since then",
                            path=what,
                            expected=" or ".join(str(k or "none") for k in known),
                            found=found or "none",
                            next_step=_restore(what, switch, known[0])
                            + ", then run this again: it rolls back the rest",
                        ),
                    ),
                )

    def _move_back(self) -> None:
        switch = self._switch
        why = "overlay: apply --commit is rolled back"
        back: tuple[str, ...]
        if _is_id(switch.head):
            back = ("update-ref", "--no-deref", "-m", why, "HEAD", switch.head)
        else:
            back = ("symbolic-ref", "-m", why, "HEAD", switch.head)
        self._write(*back)

    def _write(self, *arguments: str, stdin: str | None = None) -> None:
        data = None if stdin is None else stdin.encode()
        clones.run(self._clone, *arguments, stdin=data, keep=self._keep)


@contextmanager
def report_git_failure(clone: Path, state: str) -> Iterator[None]:
    """Add to a failure of git the state it leaves. Raises EnvironmentFailure."""
    try:
        yield
    except EnvironmentFailure as error:
        step = "fix the cause above: make room or permit writing; if a lock exists, "
        step += "wait for its process, or remove it if none is running; then "
        finding = Finding(
            "git failed",
            path=str(clone),
            found=error.message,
            next_step=f"{step}run this again",
        )
        what = f"{clone}: git failed; {state}"
        raise EnvironmentFailure(what, (finding, *error.findings)) from error


def _restore(what: str, switch: Switch, before: str | None) -> str:
    if what == "HEAD":
        if _is_id(switch.head):
            return f"put it back (git update-ref --no-deref HEAD {switch.head})"
        return f"put it back (git symbolic-ref HEAD {switch.head})"
    if what == switch.branch:
        return f"rename the branch (git branch -m {what[len(BRANCHES) :]} NEW-NAME)"
    path = what.removesuffix(" in the index")
    return f"unstage it (git restore --staged -- {quoted(path)})"


def _is_id(text: str) -> bool:
    return len(text) in (40, 64) and not set(text) - set("0123456789abcdef")
