"""Other tools take the exported series, and come to the same tree as apply."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from conftest import Pins, run_verb
from overlaykit import git
from overlaykit.export import export_quilt, mailbox


def tree_of(root: Path) -> str:
    """The git tree id of a work tree as it is, tools' own folders apart."""
    git.run(root, "add", "-A", "-f", "--", ".", ":!patches", ":!.pc")
    return git.text(root, "write-tree")


@pytest.fixture
def clones(laid_out: dict[str, Path], tmp_path: Path) -> Callable[[str, str], Path]:
    def make(target: str, name: str) -> Path:
        shutil.copytree(laid_out[target], tmp_path / name, symlinks=True)
        return tmp_path / name

    return make


@pytest.mark.parametrize("target", ["sglang", "aiter"])
def test_same_tree_by_quilt_am_and_git_apply(
    target: str, pins: Pins, clones: Callable[[str, str], Path], tmp_path: Path
) -> None:
    carried = pins.overlay[target]
    ours = clones(target, "ours")
    assert run_verb("apply", str(ours)).returncode == 0
    want = tree_of(ours)

    mailed = clones(target, "mailed")
    git.run(mailed, "config", "user.name", "t")
    git.run(mailed, "config", "user.email", "t@localhost")
    git.run(mailed, "am", "-q", stdin=mailbox(carried))
    assert git.text(mailed, "rev-parse", "HEAD^{tree}") == want

    piped = clones(target, "piped")
    git.run(piped, "update-index", "-q", "--refresh")
    names = export_quilt(carried, tmp_path / "patches")
    for name in names[:-1]:
        patch = (tmp_path / "patches" / name).read_bytes()
        git.run(piped, "apply", "--index", "-", stdin=patch)
    assert git.text(piped, "write-tree") == want

    if shutil.which("quilt") is None:
        pytest.skip("quilt is not installed: its part was not run")
    quilted = clones(target, "quilted")
    shutil.copytree(tmp_path / "patches", quilted / "patches")
    subprocess.run(["quilt", "push", "-a", "-q"], cwd=quilted, check=True)
    assert tree_of(quilted) == want


@pytest.mark.parametrize("target", ["sglang", "aiter"])
def test_am_and_commit_agree_on_messages(
    target: str, pins: Pins, clones: Callable[[str, str], Path]
) -> None:
    mailed, ours = clones(target, "mailed"), clones(target, "ours")
    git.run(mailed, "config", "user.name", "t")
    git.run(mailed, "config", "user.email", "t@localhost")
    git.run(mailed, "am", "-q", stdin=mailbox(pins.overlay[target]))
    assert run_verb("apply", "--commit", str(ours)).returncode == 0
    show = ("log", "--format=%an%n%ae%n%at%n%B%n%T", "pin..HEAD")
    assert git.text(mailed, *show) == git.text(ours, *show)


def test_quilt_folder_must_be_empty(pins: Pins, tmp_path: Path) -> None:
    (tmp_path / "stray.patch").write_text("")
    with pytest.raises(FileExistsError):
        export_quilt(pins.overlay["sglang"], tmp_path)
