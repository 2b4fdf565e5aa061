"""--commit on several clones, with other git processes, and interrupted: it is rolled
back, and the report names the state of every clone."""

from __future__ import annotations

import errno
import itertools
import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from faults.commits import REF, Clones, at_the_commit_point, points
from faults.harness import FOLDER, GIT, KILL, Done, Mischief, apply, copy, send, start
from faults.test_trouble import in_a_mount
from overlaykit.core import git
from overlaykit.core.errors import Exit
from support.clone_state import locks, state

pytestmark = pytest.mark.slow("another process gets in between at every step")

COMMUNICATOR = "python/sglang/srt/layers/communicator.py"


def pairs(slim: Callable[..., Path], clones: Clones, room: Path) -> tuple[Path, Path]:
    """AITER and SGLang; they are written in the order of their names."""
    first = copy(slim("aiter", "aiter"), room / "a-aiter")
    return first, copy(clones.old, room / "b-sglang")


@pytest.mark.parametrize("lock", ["index.lock", "HEAD.lock", f"{REF}.lock"])
def test_the_second_clone_is_locked_meanwhile(
    slim: Callable[..., Path], clones: Clones, room: Path, lock: str
) -> None:
    """The first already has its new branch, HEAD and index: all are rolled back."""
    trees = pairs(slim, clones, room)
    before = [state(tree) for tree in trees]
    place = trees[1] / ".git" / lock
    place.parent.mkdir(parents=True, exist_ok=True)
    done = apply(
        room, "--json", "--commit", *trees, at=2, event="os.link",
        mischief=place.touch,
    )  # fmt: skip
    assert done.code == Exit.ENVIRONMENT, done.text
    assert lock in done.text and "nothing was changed" in done.text
    assert locks(trees[1]) == [lock]
    place.unlink()
    assert [state(tree) for tree in trees] == before
    assert apply(room, "--commit", *trees).code == 0


def test_killed_between_two_clones(
    slim: Callable[..., Path], clones: Clones, room: Path
) -> None:
    """The first is all new except for the commit point; each recovers by itself."""
    trees = pairs(slim, clones, room)
    before = [state(tree) for tree in trees]
    killed = apply(room, "--commit", *trees, at=2, event="os.link", mischief=KILL)
    assert killed.code == -9
    assert git.text(trees[0], "symbolic-ref", "HEAD") == REF
    assert apply(room, "--status", *trees).code == 1
    assert [state(tree) for tree in trees] == before


def fail_at(ending: str, number: int, error: int) -> Mischief:
    """Make the ``number``-th rename or link to such a file fail."""

    def first() -> None:
        seen = 0

        def hook(name: str, details: tuple[object, ...]) -> None:
            nonlocal seen
            if name in ("os.rename", "os.link") and str(details[1]).endswith(ending):
                seen += 1
                if seen == number:
                    raise OSError(error, os.strerror(error))

        sys.addaudithook(hook)

    return first


def test_the_second_commit_point_fails(
    slim: Callable[..., Path], clones: Clones, room: Path
) -> None:
    """The first clone is final by then, and the report names it."""
    trees = pairs(slim, clones, room)
    before = state(trees[1])
    first = fail_at("/done.json", 2, errno.EIO)
    done = apply(room, "--json", "--commit", *trees, first=first)
    assert done.code == Exit.ENVIRONMENT, done.text
    found = {f["path"]: f["what"] for f in done.report["findings"]}
    assert found[str(trees[0])] == "the series is applied and committed"
    assert git.text(trees[0], "symbolic-ref", "HEAD") == REF
    assert state(trees[1]) == before


def test_a_file_system_without_hard_links(clones: Clones, room: Path) -> None:
    clone = copy(clones.old, room / "clone")
    first = fail_at("/index.lock", 1, errno.EPERM)
    done = apply(room, "--json", "--commit", clone, first=first)
    assert done.code == Exit.ENVIRONMENT, done.text
    assert "does not support hard links" in done.report["findings"][0]["what"]
    assert state(clone) == clones.before


def test_full_disk(clones: Clones, room: Path) -> None:
    """In a separate file system; see ``mounts.py``."""
    in_a_mount("commit", clones.old, room)


def test_two_worktrees_at_once(clones: Clones, room: Path) -> None:
    """At the end at most one of them has the branch."""
    for _ in range(6):
        one, two = copy(clones.old, room / "one"), room / "two"
        git.run(one, "worktree", "add", "-q", "--detach", str(two))
        ready, gun = os.pipe()

        def wait_for_gun(ready: int = ready, gun: int = gun) -> None:
            os.close(gun)
            os.read(ready, 1)

        runs = [start(room, "--commit", t, first=wait_for_gun) for t in (one, two)]
        os.close(ready)
        os.close(gun)
        done = [run.wait() for run in runs]
        there = [
            git.run(t, "symbolic-ref", "-q", "HEAD", ok=(0, 1)) for t in (one, two)
        ]
        have = [head.stdout.decode().strip() == REF for head in there]
        assert have == [run.code == 0 for run in done], [run.text for run in done]
        assert have.count(True) <= 1
        assert {run.code for run in done} <= {0, 3, 5}
        for tree in (one, two):
            assert git.text(tree, "status", "--porcelain") == ""
            assert locks(tree) == []
        shutil.rmtree(two)


def moved(clone: Path) -> None:
    git.run(clone, "symbolic-ref", "HEAD", "refs/heads/mine")


def staged(clone: Path) -> None:
    git.run(clone, "update-index", "--chmod=+x", "python/sglang/__init__.py")


def begun(clone: Path) -> None:
    head = git.text(clone, "rev-parse", "HEAD")
    (clone / ".git" / "MERGE_HEAD").write_text(f"{head}\n")


@pytest.mark.parametrize(
    ("mischief", "said"),
    [
        (moved, "HEAD was moved"),
        (staged, "the index was changed"),
        (begun, "a merge is under way"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_git_is_used_meanwhile(
    clones: Clones, room: Path, mischief: Callable[[Path], None], said: str
) -> None:
    """Between the check of the clone and locking its index."""
    clone = copy(clones.old, room / "clone")
    git.run(clone, "branch", "mine")

    done = apply(
        room, "--json", "--commit", clone, at=1, event="os.rename",
        mischief=lambda: mischief(clone),
    )  # fmt: skip
    wanted = copy(clones.old, room / "wanted")
    git.run(wanted, "branch", "mine")
    mischief(wanted)
    assert done.code == Exit.CANNOT_APPLY, done.text
    assert said in done.text
    assert state(clone) == state(wanted)
    assert locks(clone) == []


def test_git_is_used_between_crash_and_recovery(clones: Clones, room: Path) -> None:
    """A git status rewrites the index, and another file is staged: neither prevents the
    recovery, and both stay."""
    clone = copy(clones.old, room / "clone")
    killed = apply(room, "--commit", clone, first=at_the_commit_point)
    assert killed.code == -9
    git.run(clone, "update-index", "--refresh")
    staged(clone)
    assert apply(room, "--status", clone).code == 1
    wanted = copy(clones.old, room / "wanted")
    staged(wanted)
    assert state(clone) == state(wanted)


def more_commits(clone: Path) -> None:
    who = ("-c", "user.name=t", "-c", "user.email=t@localhost")
    git.run(clone, *who, "commit", "-q", "--allow-empty", "-m", "mine")


def another_edit(clone: Path) -> None:
    git.run(clone, "update-index", "--chmod=+x", COMMUNICATOR)


@pytest.mark.parametrize(
    ("mischief", "undo", "named"),
    [
        (more_commits, ("update-ref", REF, f"{REF}~1"), REF),
        (moved, ("symbolic-ref", "HEAD", "refs/heads/main"), "HEAD"),
        (another_edit, ("update-index", "--chmod=-x", COMMUNICATOR), COMMUNICATOR),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_the_clone_changes_after_a_crash(
    clones: Clones,
    room: Path,
    mischief: Callable[[Path], None],
    undo: tuple[str, ...],
    named: str,
) -> None:
    """It is refused by name and nothing is lost; after the next step in the error, it
    continues."""
    clone = copy(clones.old, room / "clone")
    assert apply(room, "--commit", clone, first=at_the_commit_point).code == -9
    mischief(clone)
    refs = git.text(clone, "for-each-ref")
    done = apply(room, "--json", "--status", clone)
    assert done.code == Exit.CANNOT_APPLY, done.text
    [finding] = done.report["findings"]
    assert named in finding["path"] and finding["next_step"]
    assert git.text(clone, "for-each-ref") == refs
    git.run(clone, *undo)
    assert apply(room, "--status", clone).code == 1
    assert state(clone) == clones.before


@pytest.mark.parametrize(
    "switch",
    [
        '{"branch": "refs/tags/v1"}',
        '{"branch": "--help"}',
        '{"tip": "HEAD"}',
        '{"head": "main"}',
        '{"rows": [{"path": "../x", "before": null, "after": "100644 %s"}]}',
    ],
)
def test_a_forged_journal_is_refused(clones: Clones, room: Path, switch: str) -> None:
    """Git gets no value from it that this program would not have written."""
    clone = copy(clones.old, room / "clone")
    head = git.text(clone, "rev-parse", "HEAD")
    good = {"branch": REF, "tip": head, "made": True, "head": "refs/heads/main"}
    bad = json.loads(switch.replace("%s", head))
    (clone / FOLDER).mkdir()
    journal = clone / FOLDER / "journal.json"
    whole = {"files": [], "switch": {**good, "commit": head, "rows": [], **bad}}
    journal.write_text(json.dumps(whole))
    done = apply(room, "--json", "--status", clone)
    assert done.code == Exit.CANNOT_APPLY, done.text
    assert done.report["findings"][0]["path"] == f"{FOLDER}/journal.json"
    journal.unlink()
    (clone / FOLDER / "lock").unlink(missing_ok=True)
    (clone / FOLDER).rmdir()
    assert state(clone) == clones.before


# --- signals --------------------------------------------------------------------------


def test_interrupted_at_every_write(clones: Clones, room: Path) -> None:
    """The message names the clone's state correctly."""
    seen = []
    number = itertools.cycle((signal.SIGINT, signal.SIGTERM))
    for point in range(2, points(room, clones, None) + 1, 3):
        clone = copy(clones.old, room / "clone")
        mischief = send(next(number))
        done = apply(room, "--commit", clone, at=point, mischief=mischief)
        seen.append(_interrupted(done, clone, clones))
    assert seen == sorted(seen, reverse=True)
    assert seen.count(True) > 5 and False in seen


def test_interrupted_before_every_git(clones: Clones, room: Path) -> None:
    last = points(room, clones, GIT)
    for point in range(last - 9, last + 1):
        clone = copy(clones.old, room / "clone")
        mischief = send(signal.SIGINT)
        done = apply(room, "--commit", clone, at=point, event=GIT, mischief=mischief)
        assert _interrupted(done, clone, clones)
        assert locks(clone) == []


def _interrupted(done: Done, clone: Path, clones: Clones) -> bool:
    """Whether nothing was changed, which the message must say."""
    assert done.code == Exit.INTERRUPTED, done.text
    found = state(clone)
    old = "interrupted; nothing was changed" in done.err
    assert old or f"{clone}: the series is applied and committed" in done.err
    assert found == (clones.before if old else clones.after)
    return old
