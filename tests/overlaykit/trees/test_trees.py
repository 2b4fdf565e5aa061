"""Every kind of tree gives the same files for one release."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from conftest import Pins
from overlaykit.core import git
from overlaykit.core.errors import CannotApply, EnvironmentFailure, InputError
from overlaykit.core.paths import check_path
from overlaykit.trees.tree import DirectoryTree, EditedTree, GitTree, Tree, WheelTree


def test_all_trees_agree(pins: Pins, slim: Callable[..., Path]) -> None:
    root, wheel = slim(), pins.tree("sglang")
    package = pins.overlay["sglang"].target.package_layout()
    with GitTree(root, "HEAD") as committed:
        trees: list[Tree] = [
            committed,
            DirectoryTree(root),
            DirectoryTree(root / "python" / "sglang", package),
        ]
        listed = sorted(committed.paths())
        assert len(listed) > 50
        for tree in trees:
            assert sorted(tree.paths()) == listed
            assert all(tree.read(path) == wheel.read(path) for path in listed)
            assert tree.read("python/sglang/no/such.py") is None
        assert not trees[2].holds("test/x.py")
        assert not wheel.holds("test/x.py")
        assert committed.read("python") is None


def test_edited_tree(pins: Pins) -> None:
    base = pins.tree("aiter")
    [path] = pins.overlay["aiter"].series.paths
    tree = EditedTree(base, {path: None, "aiter/new.py": b"1\n"})
    assert tree.read(path) is None
    assert tree.read("aiter/new.py") == b"1\n"
    assert set(base.paths()) - set(tree.paths()) == {path}
    assert set(tree.paths()) - set(base.paths()) == {"aiter/new.py"}


def test_symbolic_links_are_refused(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "f").write_text("x")
    (tmp_path / "folder").symlink_to("real")
    (tmp_path / "real" / "g").symlink_to("f")
    tree = DirectoryTree(tmp_path)
    assert tree.read("real/f") == b"x"
    for path in ("folder/f", "real/g"):
        with pytest.raises(CannotApply, match="symbolic link"):
            tree.read(path)


@pytest.mark.parametrize(
    "path", ["", "/etc/passwd", "../x", "a/../b", "a//b", "./a", ".git/config", "a\\b"]
)
def test_paths_that_leave_the_tree(path: str) -> None:
    with pytest.raises(InputError):
        check_path(path)


def test_unreadable_wheels_and_trees(tmp_path: Path, slim: Callable[..., Path]) -> None:
    (tmp_path / "x.whl").write_text("no zip")
    for wheel in ("x.whl", "missing.whl"):
        with pytest.raises(EnvironmentFailure):
            WheelTree(tmp_path / wheel)
    with pytest.raises(InputError, match="no tree 'nothing'"):
        GitTree(slim(), "nothing")


def tree_object(clone: Path, rows: bytes) -> str:
    """Write a tree object with these rows, without any check."""
    command = ["hash-object", "-t", "tree", "-w", "--stdin", "--literally"]
    return git.run(clone, *command, stdin=rows).stdout.decode().strip()


@pytest.mark.parametrize(
    "name", ["..", ".git", ".GIT", "git~1", "a\\b", "a\nb", "a\udcffb"]
)
def test_hostile_tree_objects_are_rejected(tmp_path: Path, name: str) -> None:
    """Git does not check these out, but stores and lists them."""
    git.run(tmp_path, "init", "-q")
    blob = git.run(tmp_path, "hash-object", "-w", "--stdin", stdin=b"x\n").stdout
    row = b"100644 %b\0%b" % (os.fsencode(name), bytes.fromhex(blob.decode().strip()))
    tree = tree_object(tmp_path, row)
    above = tree_object(tmp_path, b"40000 sub\0" + bytes.fromhex(tree))
    for one in (tree, above):
        with GitTree(tmp_path, one) as hostile, pytest.raises(InputError) as refused:
            list(hostile.paths())
        str(refused.value).encode()
    with GitTree(tmp_path, above) as hostile, pytest.raises(InputError):
        hostile.read(f"sub/{name}")
