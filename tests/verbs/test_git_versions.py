"""Older versions of git either work the same or are refused.

``GIT_OLD`` names the git programs to test with (see ``other_git.py``).
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from conftest import IDENTITY, ROOT, give_modules, run_verb, snapshot
from overlaykit.core import git, gitversion
from overlaykit.core.errors import EnvironmentFailure, Exit
from support.hostile_clones import give_away
from support.other_git import older_than, on_path, too_old
from verbs.test_rebase import call

pytestmark = pytest.mark.slow("every verb with other versions of git")

COMMUNICATOR = "python/sglang/srt/layers/communicator.py"
Slim = Callable[..., Path]
NEEDS_ROOT = pytest.mark.skipif(
    os.geteuid() != 0, reason="only root can give a clone to another user"
)


@pytest.mark.parametrize(
    ("said", "version"),
    [
        ("git version 2.39.5", (2, 39, 5)),
        ("git version 2.39.5 (Apple Git-154)", (2, 39, 5)),
        ("git version 2.47.1.windows.2", (2, 47, 1)),
        ("git version 2.35.rc1", (2, 35)),
        ("git version 2.34.8-dirty", (2, 34, 8)),
        ("usage: something else", ()),
        ("", ()),
    ],
)
def test_version_strings(said: str, version: tuple[int, ...]) -> None:
    assert gitversion.parsed(said) == version


@pytest.mark.parametrize("said", ["git version 2.33.9", "git version 2.25.1", "what?"])
def test_an_older_git_is_refused_with_its_version(said: str) -> None:
    with pytest.raises(EnvironmentFailure) as caught:
        gitversion.require(said)
    assert caught.value.message == f"git 2.34 or newer is needed, and this is {said}"
    assert caught.value.findings[0].found == said
    gitversion.require("git version 2.34.0")


def verbs(clone: Path) -> dict[str, tuple[str | Path, ...]]:
    """Every verb that runs git."""
    given = ("--clone", clone)
    return {
        "apply --commit": ("apply", "--commit", clone),
        "drift": ("drift", *given, "--ref", "HEAD"),
        "rebase": ("rebase", "--onto", "HEAD", *given),
        "refresh": ("refresh", clone),
        "export": ("export", "--target", "sglang", "--branch", "b", *given),
        "export --mbox": ("export", "--target", "sglang", "--mbox", clone / "mbox"),
        "lock": ("lock", "--check", *given),
        "fetch": ("fetch",),
    }


@pytest.mark.parametrize("name", verbs(Path()))
def test_a_git_that_is_too_old_is_never_run_on_a_clone(
    name: str, slim: Slim, carrier: Path, tmp_path: Path
) -> None:
    give_modules(carrier)
    clone = slim()
    if name == "refresh":
        assert run_verb("apply", str(clone)).returncode == 0
        (clone / COMMUNICATOR).write_bytes((clone / COMMUNICATOR).read_bytes() + b"#\n")
    program = too_old(tmp_path / "bin", "2.25.1")
    room = tmp_path / "room"
    room.mkdir()
    env = {"PATH": on_path(program), "TMPDIR": str(room)}
    before = [snapshot(clone), snapshot(carrier), snapshot(clone / ".git")]
    verb, *words = verbs(clone)[name]
    done = call(carrier, str(verb), *words, env=env)
    assert done.returncode == Exit.ENVIRONMENT, done.stderr
    assert "git 2.34 or newer is needed, and this is git version 2.25.1" in done.stderr
    assert "install git 2.34 or newer" in done.stderr
    assert "usage" not in done.stderr
    assert [snapshot(clone), snapshot(carrier), snapshot(clone / ".git")] == before
    assert not Path(f"{program}.asked").exists()
    assert list(room.iterdir()) == []


def test_verbs_that_need_no_git_work_without_it(slim: Slim, tmp_path: Path) -> None:
    clone = slim()
    env = {"PATH": on_path(too_old(tmp_path / "bin", "2.25.1"))}
    assert call(ROOT, "apply", clone, env=env).returncode == 0
    assert call(ROOT, "verify", clone, env=env).returncode == 0


def test_doctor_reports_the_version(
    slim: Slim, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clone = slim()
    words = ("--sglang", str(clone), "--device", "cpu")
    present = run_verb("doctor", *words).stdout
    said = git.text(clone, "version").removeprefix("git version ")
    assert f"git       {said}\n" in present
    monkeypatch.setenv("PATH", on_path(too_old(tmp_path / "bin", "2.25.1")))
    old = run_verb("doctor", *words).stdout
    assert (
        "git       git 2.34 or newer is needed, and this is git version 2.25.1" in old
    )
    monkeypatch.setenv("PATH", "/nowhere")
    assert "git       cannot run git: git is not installed" in (
        run_verb("doctor", *words).stdout
    )


@pytest.fixture
def old() -> str:
    """A PATH with a git before 2.38."""
    return on_path(older_than((2, 38)))


@NEEDS_ROOT
def test_a_clone_of_another_user_on_an_old_git(
    old: str, slim: Slim, carrier: Path, tmp_path: Path
) -> None:
    """Every verb refuses it until the user sets safe.directory, and then accepts it."""
    clone = slim()
    (clone / COMMUNICATOR).write_bytes(
        b"# A line more.\n" + (clone / COMMUNICATOR).read_bytes()
    )
    git.run(clone, "commit", "-q", "-a", "-m", "more", env=IDENTITY)
    git.run(clone, "branch", "pin", "HEAD~1")
    config = tmp_path / "gitconfig"
    config.write_text("")
    env = {"PATH": old, "GIT_CONFIG_GLOBAL": str(config)}
    give_away(clone)
    commands = (
        ("drift", "--clone", clone, "--range", "pin..HEAD"),
        ("rebase", "--onto", "HEAD", "--clone", clone),
    )
    for words in commands:
        done = call(carrier, *words, env=env)
        assert done.returncode == Exit.ENVIRONMENT, (words, done.stderr)
        assert f"safe.directory {clone}" in done.stderr
        assert "is not a clone" not in done.stderr
    config.write_text(f"[safe]\n\tdirectory = {clone}\n")
    for words in commands:
        done = call(carrier, *words, env=env)
        assert done.returncode == 0, (words, done.stderr)
    done = call(carrier, "apply", clone, env=env)
    assert done.returncode == Exit.CANNOT_APPLY
    assert "offset +1" in done.stdout
    git.run(clone, "checkout", "-q", "pin")
    give_away(clone)
    done = call(carrier, "apply", "--commit", clone, env=env)
    assert done.returncode == 0, done.stderr
    assert call(carrier, "apply", "--status", clone, env=env).returncode == 0


def test_an_old_git_gives_the_same_rebase(
    old: str, slim: Slim, carrier: Path, tmp_path: Path
) -> None:
    """Also for a conflict and its markers."""
    clone = slim()
    text = (clone / COMMUNICATOR).read_text()
    for change in (f"# A line more.\n{text}", text.replace("fused_rms_fp8_", "f_")):
        (clone / COMMUNICATOR).write_text(change)
        git.run(clone, "commit", "-q", "-a", "-m", "changed", env=IDENTITY)
    for onto, code in (("HEAD~1", 0), ("HEAD", 3)):
        made = []
        for path in (os.environ["PATH"], old):
            done = call(carrier, "rebase", "--onto", onto, "--clone", clone,
                        env={"PATH": path})  # fmt: skip
            assert done.returncode == code, done.stderr
            folder = carrier / "build" / "rebase"
            made.append((done.stdout, done.stderr, snapshot_contents(folder)))
            assert call(carrier, "rebase", "--abort").returncode == 0
        assert made[0] == made[1]
        assert made[0][2]


def snapshot_contents(folder: Path) -> dict[str, bytes]:
    return {path: data for path, (_, _, data) in snapshot(folder).items()}


def test_no_scratch_folder_is_left(slim: Slim, tmp_path: Path) -> None:
    """If the store of a merge cannot be created."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "tempdir", str(tmp_path))
        patch.setenv("PATH", "/nowhere")
        from overlaykit.repository.merge import MergeStore

        with pytest.raises(EnvironmentFailure, match="git is not installed"):
            MergeStore()
    assert list(tmp_path.iterdir()) == []
