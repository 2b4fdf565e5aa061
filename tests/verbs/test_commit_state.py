"""--commit in a clone with unfinished work is refused by name with exit 3 and changes
nothing; states that only look like it are accepted."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from conftest import IDENTITY, run_verb
from overlaykit.core import git
from overlaykit.core.errors import Exit
from support.clone_state import locks, state

Slim = Callable[..., Path]
BRANCH = "overlay/pretransposed-x-scale"
REF = f"refs/heads/{BRANCH}"
COMMUNICATOR = "python/sglang/srt/layers/communicator.py"
NEW = "python/sglang/srt/layers/quantization/bpreshuffle_scale.py"


def do(clone: Path, *arguments: str, fails: bool = False, stdin: bytes = b"") -> str:
    """Run git as a user, without an editor."""
    env = {**IDENTITY, "GIT_EDITOR": "true"}
    codes = range(1, 256) if fails else (0,)
    done = git.run(clone, *arguments, env=env, stdin=stdin, ok=codes)
    return done.stdout.decode().strip()


def refused(
    clone: Path,
    *said: str,
    code: Exit = Exit.CANNOT_APPLY,
    others: tuple[Path, ...] = (),
) -> None:
    """--commit prints all of ``said`` and a next step, and changes nothing."""
    trees = (clone, *others)
    before = [state(tree) for tree in trees]
    for more in (("--dry-run",), ()):
        done = run_verb("apply", "--commit", *more, *map(str, trees))
        assert done.returncode == code, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        assert "  next  " in done.stderr
        assert "nothing was changed" in done.stderr
        for part in said:
            assert part in done.stderr, (part, done.stderr)
        assert [state(tree) for tree in trees] == before


def committed(clone: Path) -> None:
    """--commit succeeds, and git reports no difference in the touched files."""
    done = run_verb("apply", "--commit", str(clone))
    assert done.returncode == 0, done.stdout + done.stderr
    assert git.text(clone, "symbolic-ref", "HEAD") == REF
    assert git.text(clone, "diff", "--cached", "HEAD", "--", "python") == ""
    assert git.text(clone, "diff", "HEAD", "--", "python") == ""
    assert run_verb("verify", str(clone)).returncode == 0
    assert locks(clone) == []


# --- the index ------------------------------------------------------------------------


def stage(clone: Path, path: str, text: str | None) -> None:
    """Stage contents that the work tree does not have; None removes the entry."""
    if text is None:
        do(clone, "update-index", "--force-remove", path)
        return
    blob = do(clone, "hash-object", "-w", "--stdin", stdin=text.encode())
    do(clone, "update-index", "--add", "--cacheinfo", f"100644,{blob},{path}")


def staged_only(clone: Path) -> None:
    stage(clone, COMMUNICATOR, "staged work\n")


def staged_removal(clone: Path) -> None:
    stage(clone, COMMUNICATOR, None)


def staged_mode(clone: Path) -> None:
    do(clone, "update-index", "--chmod=+x", COMMUNICATOR)


def staged_new(clone: Path) -> None:
    stage(clone, NEW, "mine\n")


def intended(clone: Path) -> None:
    (clone / NEW).write_text("mine\n")
    do(clone, "add", "-N", NEW)
    (clone / NEW).unlink()


def staged_folder(clone: Path) -> None:
    stage(clone, f"{NEW}/inside", "mine\n")


def staged_file_for_a_folder(clone: Path) -> None:
    stage(clone, "test/registered", "mine\n")


def skipped(clone: Path) -> None:
    do(clone, "update-index", "--skip-worktree", COMMUNICATOR)


def assumed(clone: Path) -> None:
    do(clone, "update-index", "--assume-unchanged", COMMUNICATOR)


def unmerged(clone: Path) -> None:
    blob = do(clone, "hash-object", "-w", "--stdin", stdin=b"a\n")
    rows = "".join(f"100644 {blob} {n}\tREADME\n" for n in (1, 2, 3))
    do(clone, "update-index", "--index-info", stdin=rows.encode())


@pytest.mark.parametrize(
    ("trouble", "said"),
    [
        (staged_only, (COMMUNICATOR, "has a staged change", "git restore --staged")),
        (staged_removal, (COMMUNICATOR, "has a staged change", "no entry")),
        (staged_mode, (COMMUNICATOR, "has a staged change", "100755")),
        (staged_new, (NEW, "has a staged change")),
        (intended, (NEW, "has a staged change")),
        (staged_folder, (f"{NEW}/inside", "is staged where the series has a file")),
        (
            staged_file_for_a_folder,
            ("test/registered", "is staged where the series has a folder"),
        ),
        (skipped, (COMMUNICATOR, "skip-worktree", "--no-skip-worktree")),
        (assumed, (COMMUNICATOR, "assume-unchanged", "--no-assume-unchanged")),
        (unmerged, ("README", "is unmerged")),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_work_in_the_index(
    slim: Slim, trouble: Callable[[Path], None], said: tuple[str, ...]
) -> None:
    clone = slim()
    trouble(clone)
    refused(clone, *said)


def test_other_staged_files_stay_staged(slim: Slim) -> None:
    """As with ``git checkout -b``, HEAD moves and the staged changes stay."""
    clone = slim()
    stage(clone, "mine.txt", "mine\n")
    (clone / "mine.txt").write_text("mine\n")
    do(clone, "mv", "python/sglang/__init__.py", "python/sglang/moved.py")
    before = do(clone, "diff", "--cached", "--name-status", "HEAD")
    committed_tip = run_verb("apply", "--commit", str(clone))
    assert committed_tip.returncode == 0, committed_tip.stderr
    assert do(clone, "diff", "--cached", "--name-status", "HEAD") == before
    assert do(clone, "diff", "--name-only") == ""


def test_the_series_itself_is_staged(slim: Slim) -> None:
    """Only the series is staged, so the commit loses nothing."""
    clone = slim()
    assert run_verb("apply", str(clone)).returncode == 0
    do(clone, "add", "-A")
    committed(clone)
    assert do(clone, "status", "--porcelain") == ""


def test_apply_alone_does_not_look_at_the_index(slim: Slim) -> None:
    clone = slim()
    staged_only(clone)
    before = state(clone)
    assert run_verb("apply", str(clone)).returncode == 0
    assert run_verb("apply", "--unapply", str(clone)).returncode == 0
    assert state(clone) == before


# --- unfinished operations of git -----------------------------------------------------


def two_lines(clone: Path) -> str:
    """A branch ``other`` whose commit conflicts with the current one; returns it."""
    (clone / "z").write_text("0\n")
    do(clone, "add", "z")
    do(clone, "commit", "-qm", "zero")
    do(clone, "checkout", "-q", "-b", "other")
    (clone / "z").write_text("a\n")
    do(clone, "commit", "-qam", "a")
    other = do(clone, "rev-parse", "HEAD")
    do(clone, "checkout", "-q", "-b", "third", "HEAD~1")
    (clone / "z").write_text("b\n")
    do(clone, "commit", "-qam", "b")
    return other


def rebasing(clone: Path) -> None:
    do(clone, "rebase", two_lines(clone), fails=True)


def rebasing_by_patches(clone: Path) -> None:
    do(clone, "rebase", "--apply", two_lines(clone), fails=True)


def rebasing_without_conflict(clone: Path) -> None:
    """Stopped by "edit": nothing is unmerged, and HEAD is detached."""
    two_lines(clone)
    env = {**IDENTITY, "GIT_SEQUENCE_EDITOR": "sed -i s/^pick/edit/"}
    git.run(clone, "rebase", "-i", "HEAD~1", env=env)


def am(clone: Path) -> None:
    mail = do(clone, "format-patch", "--stdout", "-1", two_lines(clone))
    do(clone, "am", fails=True, stdin=mail.encode() + b"\n")


def merging(clone: Path) -> None:
    do(clone, "merge", two_lines(clone), fails=True)


def merging_resolved(clone: Path) -> None:
    merging(clone)
    do(clone, "add", "z")


def picking(clone: Path) -> None:
    do(clone, "cherry-pick", two_lines(clone), fails=True)


def picking_several(clone: Path) -> None:
    """Between two picks: the first was resolved and committed by hand."""
    other = two_lines(clone)
    do(clone, "cherry-pick", other, "HEAD~1", fails=True)
    do(clone, "add", "z")
    do(clone, "commit", "-qm", "resolved")


def reverting(clone: Path) -> None:
    two_lines(clone)
    do(clone, "revert", "HEAD~1", fails=True)


def bisecting(clone: Path) -> None:
    two_lines(clone)
    do(clone, "bisect", "start", "HEAD", "HEAD~2")


@pytest.mark.parametrize(
    ("begin", "said"),
    [
        (rebasing, ("a rebase is under way", "git rebase --abort or --continue")),
        (rebasing_by_patches, ("a rebase is under way", "git rebase --abort")),
        (rebasing_without_conflict, ("a rebase is under way", "rebase-merge")),
        (am, ("git am is under way", "git am --abort or --continue")),
        (merging, ("a merge is under way", "MERGE_HEAD", "git merge --abort")),
        (merging_resolved, ("a merge is under way", "git merge --abort")),
        (picking, ("a cherry-pick is under way", "git cherry-pick --abort")),
        (picking_several, ("several commits is under way", "sequencer/todo")),
        (reverting, ("a revert is under way", "git revert --abort or --continue")),
        (bisecting, ("a bisection is under way", "git bisect reset")),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_unfinished_operations_are_refused(
    slim: Slim, begin: Callable[[Path], None], said: tuple[str, ...]
) -> None:
    clone = slim()
    begin(clone)
    refused(clone, *said)


# --- HEAD and the branch --------------------------------------------------------------


def test_no_commit_yet(slim: Slim) -> None:
    clone = slim(clone=False)
    do(clone, "init", "-q")
    refused(clone, "HEAD", "names no commit yet", "commit the release first")


def test_configured_as_bare(slim: Slim) -> None:
    clone = slim()
    do(clone, "config", "core.bare", "true")
    before = (clone / ".git" / "HEAD").read_text()
    done = run_verb("apply", "--commit", str(clone))
    assert done.returncode == Exit.CANNOT_APPLY, done.stderr
    assert "is not the work tree of its repository" in done.stderr
    assert (clone / ".git" / "HEAD").read_text() == before
    assert not (clone / NEW).exists()


def test_work_tree_elsewhere(slim: Slim, tmp_path: Path) -> None:
    clone, elsewhere = slim(), tmp_path / "elsewhere"
    elsewhere.mkdir()
    do(clone, "config", "core.worktree", str(tmp_path))
    done = run_verb("apply", "--commit", str(clone))
    assert done.returncode == Exit.CANNOT_APPLY, done.stderr
    assert f"its work tree is {tmp_path}" in done.stderr
    assert not (clone / NEW).exists()


def test_detached(slim: Slim) -> None:
    clone = slim()
    do(clone, "checkout", "-q", "--detach")
    committed(clone)


def test_in_two_worktrees(slim: Slim, tmp_path: Path) -> None:
    clone, second = slim(), tmp_path / "second"
    do(clone, "worktree", "add", "-q", "--detach", str(second))
    committed(second)
    said = ("is checked out in another worktree", str(second), "git switch --detach")
    refused(clone, *said, others=())
    # Git also counts a worktree that is locked or gone from disk.
    do(clone, "worktree", "lock", str(second))
    refused(clone, *said)
    do(clone, "worktree", "unlock", str(second))
    shutil.move(second, tmp_path / "away")
    refused(clone, *said, "git worktree prune")
    shutil.move(tmp_path / "away", second)
    do(second, "switch", "-q", "--detach")
    committed(clone)
    # The reverse; a clone's own worktree does not count as another.
    refused(second, "is checked out in another worktree", str(clone), others=())
    committed(clone)


def test_rebased_in_another_worktree(slim: Slim, tmp_path: Path) -> None:
    """HEAD is detached there, and the rebase will restore the branch at its end."""
    clone, second = slim(), tmp_path / "second"
    do(clone, "worktree", "add", "-q", "--detach", str(second))
    committed(second)
    env = {**IDENTITY, "GIT_SEQUENCE_EDITOR": "sed -i s/^pick/edit/"}
    git.run(second, "rebase", "-i", "HEAD~1", env=env)
    refused(clone, "is checked out in another worktree", str(second))


def test_in_a_locked_worktree(slim: Slim, tmp_path: Path) -> None:
    """A worktree that is locked against pruning can still be used."""
    clone, second = slim(), tmp_path / "second"
    do(clone, "worktree", "add", "-q", "--lock", "--detach", str(second))
    committed(second)


@pytest.mark.parametrize("name", ["overlay", f"{BRANCH}/more"])
def test_branch_name_conflicts_with_another_branch(slim: Slim, name: str) -> None:
    clone = slim()
    do(clone, "branch", name)
    refused(clone, f"refs/heads/{name}: conflicts with the branch's name", name)
    done = run_verb("export", "--branch", BRANCH, "--clone", str(clone))
    assert done.returncode == Exit.CANNOT_APPLY, done.stderr
    assert "conflicts with the branch's name" in done.stderr


def test_branch_is_a_symbolic_ref(slim: Slim) -> None:
    clone = slim()
    do(clone, "branch", "target")
    do(clone, "symbolic-ref", REF, "refs/heads/target")
    refused(clone, REF, "is a symbolic ref", "refs/heads/target")


def test_branch_is_packed(slim: Slim) -> None:
    clone = slim()
    do(clone, "branch", BRANCH)
    do(clone, "pack-refs", "--all")
    before = state(clone)
    done = run_verb("apply", "--commit", str(clone))
    assert done.returncode == Exit.CANNOT_APPLY, done.stderr
    assert "the branch contains other commits" in done.stderr
    assert state(clone) == before


def test_shallow_clones(slim: Slim, tmp_path: Path) -> None:
    """A release needs no history; a branch with only its tip cannot be checked."""
    clone = slim()
    do(clone, "commit", "-q", "--allow-empty", "-m", "one more")
    shallow = tmp_path / "shallow"
    do(tmp_path, "clone", "-q", "--depth=1", f"file://{clone}", str(shallow))
    committed(shallow)
    committed(clone)
    tip = tmp_path / "tip"
    do(tmp_path, "clone", "-q", "--depth=1", f"file://{clone}", str(tip))
    before = state(tip)
    done = run_verb("apply", "--commit", str(tip))
    assert done.returncode == Exit.CANNOT_APPLY, done.stderr
    assert "too few commits" in done.stderr and "--unshallow" in done.stderr
    assert state(tip) == before


def test_submodule(slim: Slim, tmp_path: Path) -> None:
    """Its .git is a file, and git has another name for its main worktree."""
    source, outer = slim(), tmp_path / "outer"
    outer.mkdir()
    do(outer, "init", "-q")
    allowed = ("-c", "protocol.file.allow=always")
    do(outer, *allowed, "submodule", "--quiet", "add", str(source), "sub")
    committed(outer / "sub")
    committed(outer / "sub")
    assert git.text(outer, "branch", "--list") == ""


def test_split_index(slim: Slim) -> None:
    clone = slim()
    do(clone, "update-index", "--split-index")
    committed(clone)
    assert do(clone, "status", "--porcelain") == ""


def test_sparse_index(slim: Slim) -> None:
    """The touched folders are checked out, others are one entry each."""
    clone = slim()
    for folder in ("docs/a", "docs/b"):
        (clone / folder).mkdir(parents=True)
        (clone / folder / "page").write_text("page\n")
    do(clone, "add", "docs")
    do(clone, "commit", "-qm", "pages")
    # These words work with git 2.34 too; `set --sparse-index` needs 2.35.
    do(clone, "sparse-checkout", "init", "--cone", "--sparse-index")
    do(clone, "sparse-checkout", "set", "python")
    assert has_folder_entry(clone, "docs")
    committed(clone)
    assert has_folder_entry(clone, "docs")
    assert do(clone, "status", "--porcelain") == ""


def has_folder_entry(clone: Path, folder: str) -> bool:
    """Whether the index has one entry for the whole folder, read from its bytes: `git
    ls-files --sparse` needs git 2.36."""
    index = (clone / ".git" / "index").read_bytes()
    return b"sdir" in index and f"{folder}/\0".encode() in index


def test_modes_stay_as_committed(slim: Slim) -> None:
    """The commit changes no file's mode."""
    clone = slim()
    (clone / COMMUNICATOR).chmod(0o755)
    do(clone, "commit", "-qam", "executable here")
    committed(clone)
    assert do(clone, "ls-files", "--stage", COMMUNICATOR).startswith("100755")
    assert do(clone, "status", "--porcelain") == ""


def test_sha256_objects(slim: Slim) -> None:
    clone = slim(clone=False)
    do(clone, "init", "-q", "--object-format=sha256")
    do(clone, "add", "-A", "-f")
    do(clone, "commit", "-qm", "pin")
    committed(clone)
    assert do(clone, "status", "--porcelain") == ""


def test_reftable(slim: Slim) -> None:
    clone = slim(clone=False)
    made = subprocess.run(
        ["git", "init", "-q", "--ref-format=reftable", str(clone)],
        capture_output=True,
        check=False,
    )
    if made.returncode:
        pytest.skip("this git has no reftable")
    do(clone, "add", "-A", "-f")
    do(clone, "commit", "-qm", "pin")
    committed(clone)


# --- locks of other processes ---------------------------------------------------------


@pytest.mark.parametrize(
    "lock", ["index.lock", "HEAD.lock", f"{REF}.lock", "packed-refs.lock"]
)
def test_locked_by_another_git(slim: Slim, lock: str) -> None:
    """The second of two clones is locked: neither changes."""
    first, second = slim("aiter", "a"), slim(name="b")
    place = second / ".git" / lock
    place.parent.mkdir(parents=True, exist_ok=True)
    place.touch()
    said = (str(place), "is locked by another git process", f"rm {place}")
    refused(first, *said, code=Exit.ENVIRONMENT, others=(second,))
    assert locks(second) == [lock]
    place.unlink()
    done = run_verb("apply", "--commit", str(first), str(second))
    assert done.returncode == 0, done.stderr


def test_no_filter_or_hook_runs(slim: Slim, tmp_path: Path) -> None:
    """Entries are set by id, so the clone's own filters and hooks do not run."""
    clone, ran = slim(), tmp_path / "ran"
    for name in ("clean", "smudge"):
        do(clone, "config", f"filter.evil.{name}", f"touch {ran}; cat")
    (clone / ".git" / "info").mkdir(exist_ok=True)
    (clone / ".git" / "info" / "attributes").write_text("* filter=evil\n")
    hooks = clone / ".git" / "hooks"
    hooks.mkdir(exist_ok=True)
    for name in ("post-index-change", "reference-transaction", "post-checkout"):
        (hooks / name).write_text(f"#!/bin/sh\ntouch {ran}\n")
        (hooks / name).chmod(0o755)
    done = run_verb("apply", "--commit", str(clone))
    assert done.returncode == 0, done.stderr
    assert not ran.exists()
    (clone / ".git" / "info" / "attributes").unlink()
    assert git.text(clone, "status", "--porcelain") == ""
