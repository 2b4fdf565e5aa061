"""After --commit is killed at any point, the next run makes files, index, HEAD and
branch all old or all new, even if git was left running."""

from __future__ import annotations

import itertools
import os
import shutil
from pathlib import Path

import pytest

from faults.commits import REF, Clones, at_the_commit_point, points, recovers
from faults.harness import FOLDER, GIT, KILL, Mischief, apply, copy
from overlaykit.core import git
from overlaykit.core.errors import Exit
from support.clone_state import locks, state
from support.patience import wait_until

pytestmark = pytest.mark.slow("killed at every write and every git call")

HOWS: tuple[tuple[str, ...], ...] = (("--status",), ("--commit",))


def test_killed_at_every_write(clones: Clones, room: Path) -> None:
    """Also just before the index, HEAD or a ref changes."""
    seen = []
    last = points(room, clones, None)
    # Up to the journal the writes are those of any apply, which test_kill tries.
    tried = [n for n in range(4, last + 1) if n > last - 32 or n % 4 == 0]
    for point, how in zip(tried, itertools.cycle(HOWS), strict=False):
        clone = copy(clones.old, room / "clone")
        killed = apply(room, "--commit", clone, at=point, mischief=KILL)
        assert killed.code == -9, f"write {point}: {killed.text}"
        old = recovers(clone, how, clones, room)
        seen.append(old or how == ("--commit",))
    assert True in seen
    assert len(seen) > 30
    print(f"killed at {len(seen)} writes")


def test_killed_before_every_git_of_the_transaction(clones: Clones, room: Path) -> None:
    """All git processes that start after the journal is written."""
    last = points(room, clones, GIT)
    seen = []
    for point in range(last - 9, last + 1):
        clone = copy(clones.old, room / "clone")
        killed = apply(room, "--commit", clone, at=point, event=GIT, mischief=KILL)
        assert killed.code == -9, f"git {point}: {killed.text}"
        seen.append((clone / FOLDER / "journal.json").exists())
        assert recovers(clone, ("--status",), clones, room)
    assert seen.count(True) >= 4


@pytest.mark.parametrize("detached", [False, True], ids=["branch", "detached"])
def test_the_roll_back_is_killed_at_every_step(
    clones: Clones, room: Path, detached: bool
) -> None:
    """Everything was changed, and only the commit point was missing."""
    old = clones.old
    if detached:
        git.run(old, "checkout", "-q", "--detach")
        clones = Clones(old, state(old), clones.after)
    crashed = copy(old, room / "crashed")
    killed = apply(room, "--commit", crashed, first=at_the_commit_point)
    assert killed.code == -9, killed.text
    assert git.text(crashed, "symbolic-ref", "HEAD") == REF
    assert git.text(crashed, "status", "--porcelain") == f"?? {FOLDER}/"
    for event in (None, GIT):
        for point in itertools.count(1):
            clone = copy(crashed, room / "clone")
            killed = apply(
                room, "--status", clone, at=point, event=event, mischief=KILL
            )
            if killed.code != -9:
                break
            assert recovers(clone, ("--status",), clones, room)
        assert point > 5
        assert state(clone) == clones.before


# --- git itself is in the middle ------------------------------------------------------

_SHIM = """#!/bin/sh
case " $* @${{GIT_INDEX_FILE##*/}} " in
*" {what} "*)
    if mkdir "{room}/met" 2>/dev/null; then
        {mischief}
    fi ;;
esac
exec "{real}" "$@"
"""
_WAIT = 'kill -9 $PPID; while [ ! -e "{room}/go" ]; do sleep 0.02; done; {real} "$@"; '
_WAIT += 'code=$?; touch "{room}/gone"; exit $code'
_AFTER = '{real} "$@"; kill -9 $PPID; touch "{room}/gone"; exit 0'
_DIES = "kill -9 $$"
STEPS = ("--index-info @new-index", "update-ref --stdin", "symbolic-ref -m")


def shim(room: Path, what: str, mischief: str) -> Mischief:
    """Put a wrapper for git on PATH that causes trouble at one of its calls."""
    real = shutil.which("git") or ""
    words = mischief.format(room=room, real=real)
    folder = room / "bin"
    folder.mkdir()
    script = _SHIM.format(what=what, room=room, real=real, mischief=words)
    (folder / "git").write_text(script)
    (folder / "git").chmod(0o755)

    def first() -> None:
        os.environ["PATH"] = f"{folder}{os.pathsep}{os.environ['PATH']}"

    return first


@pytest.mark.parametrize("what", STEPS)
def test_killed_while_git_runs_on(clones: Clones, room: Path, what: str) -> None:
    """A git process that outlives a killed run still holds the tree's lock, so no other
    run repairs the tree while git may write."""
    clone = copy(clones.old, room / "clone")
    killed = apply(room, "--commit", clone, first=shim(room, what, _WAIT))
    assert killed.code == -9, killed.text
    refused = apply(room, "--status", clone)
    assert refused.code == Exit.CANNOT_APPLY, refused.text
    assert "a process that it started" in refused.text
    (room / "go").touch()
    wait_until((room / "gone").exists)
    wait_until(lambda: apply(room, "--status", clone).code != Exit.CANNOT_APPLY)
    assert recovers(clone, ("--status",), clones, room)


@pytest.mark.parametrize("what", STEPS)
def test_killed_after_git_has_ended(clones: Clones, room: Path, what: str) -> None:
    clone = copy(clones.old, room / "clone")
    killed = apply(room, "--commit", clone, first=shim(room, what, _AFTER))
    assert killed.code == -9, killed.text
    wait_until((room / "gone").exists)
    assert recovers(clone, ("--status",), clones, room)


@pytest.mark.parametrize("what", STEPS)
def test_git_itself_is_killed(clones: Clones, room: Path, what: str) -> None:
    clone = copy(clones.old, room / "clone")
    done = apply(room, "--json", "--commit", clone, first=shim(room, what, _DIES))
    assert done.code == Exit.ENVIRONMENT, done.text
    assert state(clone) == clones.before
    assert locks(clone) == []
    assert recovers(clone, ("--commit",), clones, room) is False
