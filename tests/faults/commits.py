"""Clones for --commit, before and after it, and the ways to run it."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from faults.harness import apply, copy
from overlaykit.core import git
from support.clone_state import State, locks, state

BRANCH = "overlay/pretransposed-x-scale"
REF = f"refs/heads/{BRANCH}"


@dataclass(frozen=True)
class Clones:
    """A clone before and after --commit, to be copied, and what the two are."""

    old: Path
    before: State
    after: State


def make_clones(slim: Callable[..., Path], room: Path) -> Clones:
    """A clone as released, and as --commit leaves it."""
    old = copy(slim(), room / "old")
    git.run(old, "config", "core.logAllRefUpdates", "false")
    new = copy(old, room / "new")
    done = apply(room, "--commit", new)
    assert done.code == 0, done.text
    assert git.text(new, "status", "--porcelain") == ""
    # What is tried is the moving, not the making of objects, which name nothing.
    shutil.copytree(
        new / ".git" / "objects", old / ".git" / "objects", dirs_exist_ok=True
    )
    return Clones(old, state(old), state(new))


def recovers(clone: Path, how: tuple[str, ...], clones: Clones, room: Path) -> bool:
    """Run the next command and assert all old or all new; whether it is old."""
    done = apply(room, *how, clone)
    found = state(clone)
    assert found in (clones.before, clones.after), done.text
    assert locks(clone) == []
    old = found == clones.before
    if how == ("--status",):
        assert done.code == int(old), done.text
    else:
        assert (done.code, old) == (0, False), done.text
    assert git.text(clone, "status", "--porcelain") == ""
    return old


def points(room: Path, clones: Clones, event: str | None) -> int:
    """How many events of a kind a run has."""
    clone = copy(clones.old, room / "counted")
    done = apply(room, "--commit", clone, event=event)
    assert done.code == 0, done.text
    return done.writes


def at_the_commit_point() -> None:
    """Kill the process when it is about to rename its journal away."""

    def hook(name: str, details: tuple[object, ...]) -> None:
        if name == "os.rename" and str(details[1]).endswith("done.json"):
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)
