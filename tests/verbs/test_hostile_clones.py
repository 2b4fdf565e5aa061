"""No verb runs a command that a clone's configuration names, whoever owns the clone."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from conftest import give_modules, run_verb
from support.edits import commit
from support.hostile_clones import STRANGER, Traps, arm, give_away, lose
from verbs.test_rebase import call

pytestmark = pytest.mark.slow("a trap in every place, for every verb")

COMMUNICATOR = "python/sglang/srt/layers/communicator.py"
Hostile = Callable[..., Path]
NEEDS_ROOT = pytest.mark.skipif(
    os.geteuid() != 0, reason="only root can give a clone to another user"
)
CASES = [
    ("ours", "whole"),
    ("ours", "lacking"),
    ("ours", "edited"),
    *(
        pytest.param(owner, state, marks=NEEDS_ROOT)
        for owner, state in (
            ("foreign", "whole"),
            ("foreign", "edited"),
            ("allowed", "whole"),
            ("allowed", "lacking"),
        )
    ),
]
# Verbs that may write to this overlay, if only what they know of a commit: they are
# run in a copy of it.
WRITE_HERE = ("drift", "fetch", "lock", "rebase", "refresh")
# Verbs that run git in an unmodified clone.
ASK_GIT = ("drift", "rebase --onto", "lock", "fetch", "export", "refresh",
           "apply --commit")  # fmt: skip
# Verbs that name an object which the clone lacks.
MISS_IT = ("drift", "rebase --onto", "fetch", "export")


@pytest.fixture
def traps(tmp_path: Path) -> Traps:
    return Traps(tmp_path / "sprung")


@pytest.fixture
def hostile(slim: Callable[..., Path], traps: Traps) -> Hostile:
    """Clones of two commits with traps; with ``lacking`` one object is missing, with
    ``edited`` a file is edited."""

    def make(lacking: bool = False, edited: bool = False) -> Path:
        clone = slim()
        (clone / "NOTES").write_text("more\n")
        commit(clone, "more")
        if lacking:
            lose(clone, COMMUNICATOR)
        arm(clone, traps)
        if edited:
            with (clone / COMMUNICATOR).open("a") as file:
                file.write("# edited\n")
        traps.clear()
        return clone

    return make


def settle(owner: str, clone: Path, folder: Path) -> dict[str, str]:
    """Give the clone to its owner. If the owner is `allowed`, return the environment of
    a user who has followed git's advice."""
    if owner == "ours":
        return {}
    give_away(clone)
    if owner == "foreign":
        return {}
    config = folder / "gitconfig"
    config.write_text(f"[safe]\n\tdirectory = {clone}\n")
    return {"GIT_CONFIG_GLOBAL": str(config)}


def every_verb(clone: Path) -> Iterator[tuple[str, int, tuple[str, ...]]]:
    """Every verb that takes a clone, and its exit code on a complete one."""
    where = str(clone)
    yield "apply --dry-run", 0, ("apply", "--dry-run", where)
    yield "apply --status", 1, ("apply", "--status", where)
    yield "doctor", 1, ("doctor", "--sglang", where, "--device", "cpu")
    yield "drift", 0, ("drift", "--clone", where, "--ref", "HEAD")
    yield "drift", 0, ("drift", "--clone", where, "--range", "HEAD~1..HEAD")
    yield "rebase --onto", 0, ("rebase", "--onto", "HEAD", "--clone", where)
    yield "lock", 0, ("lock", "--check", "--clone", where)
    head = (clone / ".git" / "refs" / "heads" / "main").read_text().strip()
    yield "fetch", 0, ("fetch", "--commit", head, "--clone", where)
    yield (
        "export",
        0,
        ("export", "--target", "sglang", "--branch", "b", "--clone", where),
    )
    yield "apply", 0, ("apply", where)
    yield "verify", 0, ("verify", where)
    yield "refresh", 0, ("refresh", where)
    yield "apply --unapply", 0, ("apply", "--unapply", where)
    yield "apply --commit", 0, ("apply", "--commit", where)
    yield "apply --commit", 0, ("apply", "--commit", where)


def test_git_itself_springs_the_traps(hostile: Hostile, traps: Traps) -> None:
    """Plain git triggers them, so the next test proves something."""
    clone = hostile(lacking=True, edited=True)
    # Whether status reads a file's content depends on the clock.
    for words in ("status", f"hash-object {COMMUNICATOR}",
                  f"cat-file blob HEAD:{COMMUNICATOR}",
                  "update-ref refs/heads/other HEAD"):  # fmt: skip
        subprocess.run(["git", *words.split()], cwd=clone, capture_output=True)
    assert {"filter.evil.clean", "remote.origin.uploadpack",
            "hook-reference-transaction"} <= {*traps.sprung()}  # fmt: skip


@pytest.mark.parametrize(("owner", "state"), CASES)
def test_no_verb_runs_a_clones_commands(
    owner: str, state: str, hostile: Hostile, traps: Traps, carrier: Path,
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    give_modules(carrier)
    clone = hostile(lacking=state != "whole", edited=state == "edited")
    for key, value in settle(owner, clone, tmp_path).items():
        monkeypatch.setenv(key, value)
    for name, code, words in every_verb(clone):
        verb, *arguments = words
        if verb in WRITE_HERE:
            done = call(carrier, verb, *arguments)
        else:
            done = run_verb(verb, *arguments)
        assert traps.sprung() == [], words
        assert "Traceback" not in done.stderr, done.stderr
        refused = ASK_GIT if state == "whole" else ASK_GIT[:5]
        if owner == "foreign" and name in refused:
            assert done.returncode == 5, (words, done.stderr)
            assert f"found     owner uid {STRANGER}" in done.stderr
            assert f"safe.directory {clone}" in done.stderr
        elif owner == "foreign" and name == "apply --dry-run" and state == "edited":
            # Faults of the files are still reported.
            assert done.returncode == 3
            assert f"safe.directory {clone}" in done.stderr
            assert "matches no release" in done.stderr
        elif state == "whole":
            assert done.returncode == code, (words, done.stderr)
        elif name in MISS_IT and owner != "foreign":
            assert done.returncode == 5, (words, done.stderr)
            assert f"git does not have {COMMUNICATOR} locally" in done.stderr
