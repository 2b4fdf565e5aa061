"""The check for paths from outside: it rejects at least what git rejects."""

from __future__ import annotations

from pathlib import Path

import pytest

from overlaykit.core import git
from overlaykit.core.errors import InputError
from overlaykit.core.paths import check_inside, check_name, check_path, printable

ASTRAY = ["", "/", "/etc/passwd", "..", "../x", "a/..", "a/../b", "a//b", "a/", "./a",
          "a/.", ".", "a\\b", "..\\x", "a\0b", "a\nb", "a\tb", "a\x7fb", "a\x85b",
          "a\u202eb", "a\u200cb", "a\u2028b", "a\udcffb"]  # fmt: skip
GIT = [".git", ".git/config", ".GIT/config", ".gIt/x", "a/.git", "a/.GiT/hooks/x",
       "git~1", "GIT~1/config", "a/git~1", ".git ", ".git.", ".git. . /x", ".git:x",
       "git~1.", ".git::$INDEX_ALLOCATION/config", ".g\u200cit/config",
       "\ufeff.git/config"]  # fmt: skip
HONEST = ["a", "a/b.py", ".gitattributes", ".gitignore", ".gitmodules", ".github/x",
          "a.git/x", "git", "git~2", ".git2", "...", "..a", "a b,c=[1, 2].json", "é.py",
          "日本.md", '"quoted".py', "-x", ":x", "a:b"]  # fmt: skip
OURS = [".overlay-transaction/journal.json", "a/.overlay-transaction"]


@pytest.mark.parametrize("path", [*ASTRAY, *GIT, *OURS])
def test_bad_paths_are_rejected(path: str) -> None:
    with pytest.raises(InputError) as refused:
        check_path(path)
    (finding,) = refused.value.findings
    # The message can be encoded, and the path is printable.
    str(refused.value).encode()
    assert finding.path == (printable(path) or "(empty)")
    assert "\n" not in refused.value.message


@pytest.mark.parametrize("path", HONEST)
def test_good_paths_are_accepted(path: str) -> None:
    check_path(path)
    check_inside(path)


@pytest.mark.parametrize("path", ASTRAY)
def test_paths_that_leave_the_folder(path: str) -> None:
    with pytest.raises(InputError):
        check_inside(path)


def test_a_name_is_one_component() -> None:
    check_name("0001-x.patch")
    for name in ("a/b", "..", ".git", ""):
        with pytest.raises(InputError):
            check_name(name)


def test_rejects_all_that_git_rejects(tmp_path: Path) -> None:
    """Git with its protection for all systems on."""
    git.run(tmp_path, "init", "-q")
    for system in ("NTFS", "HFS"):
        git.run(tmp_path, "config", f"core.protect{system}", "true")
    blob = git.text(tmp_path, "hash-object", "-w", "--stdin")
    refused = []
    for path in [*ASTRAY, *GIT, *HONEST]:
        if "\0" in path or "\udcff" in path:
            continue
        row = f"100644 {blob}\t{path}\0".encode()
        done = git.run(
            tmp_path, "update-index", "-z", "--add", "--index-info",
            stdin=row, ok=(0, 128),
        )  # fmt: skip
        there = git.run(tmp_path, "ls-files", "-z").stdout.decode().split("\0")
        if done.returncode or path not in there:
            refused.append(path)
        git.run(tmp_path, "read-tree", "--empty")
    assert set(refused) >= {".git/config", ".GIT/config", ".g\u200cit/config", "a/../b"}
    assert not set(refused) & set(HONEST), "the check accepts a path that git rejects"
