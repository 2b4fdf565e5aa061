"""Patch files: real diffs parse and apply; anything else is refused with its line."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from overlaykit.core import git
from overlaykit.core.errors import InputError
from overlaykit.series.patches import (
    apply_hunks,
    parse_patch,
    reverse_hunks,
    split_lines,
)

_TEXT = st.lists(st.sampled_from(["a", "b", "c", "-", "+ x", "@@", ""]), max_size=14)
_END = st.sampled_from(["", "\n"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("diffs")
    git.run(made, "init", "-q")
    return made


def _diff(folder: Path, old: bytes, new: bytes) -> bytes:
    (folder / "f").write_bytes(old)
    git.run(folder, "add", "f")
    (folder / "f").write_bytes(new)
    return git.run(folder, "diff", "--full-index", "f").stdout


@settings(
    max_examples=80,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(old=_TEXT, new=_TEXT, old_end=_END, new_end=_END)
def test_a_git_diff_applies_and_reverts(
    folder: Path, old: list[str], new: list[str], old_end: str, new_end: str
) -> None:
    before = ("\n".join(old) + old_end).encode()
    after = ("\n".join(new) + new_end).encode()
    diff = _diff(folder, before, after)
    if not diff:
        return
    [file] = parse_patch("p.patch", diff).files
    assert apply_hunks(before, file.hunks) == after
    assert reverse_hunks(after, file.hunks) == before
    for hunk in file.hunks:
        old_lines, new_lines = split_lines(before), split_lines(after)
        for change in hunk.changes:
            at = change.old_line - 1
            assert tuple(old_lines[at : at + len(change.removed)]) == change.removed
            at = change.new_line - 1
            assert tuple(new_lines[at : at + len(change.added)]) == change.added


_GOOD = (
    b"Subject: [PATCH] x\n\ntext\n---\n\n"
    b"diff --git a/d/f.py b/d/f.py\n"
    b"index 0000000000000000000000000000000000000001.."
    b"0000000000000000000000000000000000000002 100644\n"
    b"--- a/d/f.py\n+++ b/d/f.py\n"
    b"@@ -1,3 +1,3 @@ def f\n a\n-b\n+c\n d\n"
)


def test_a_valid_patch_parses() -> None:
    patch = parse_patch("p.patch", _GOOD)
    assert [f.path for f in patch.files] == ["d/f.py"]
    assert parse_patch("p.patch", _GOOD + b"-- \n2.39\n").files == patch.files


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        (b"@@ -1,3 +1,3 @@", b"@@ -1,x +1,3 @@", 10),
        (b"@@ -1,3 +1,3 @@", b"@@ -%s,3 +1,3 @@" % (b"1" * 5000), 10),
        (b"@@ -1,3 +1,3 @@", b"@@ -1,%s +1,3 @@" % (b"3" * 5000), 10),
        (b"@@ -1,3 +1,3 @@", b"@@ -1,3 +%s,3 @@" % (b"0" * 10), 10),
        (b"@@ -1,3 +1,3 @@", b"@@ -1,3 +1,%s @@" % (b"9" * 5000), 10),
        (b"@@ -1,3 +1,3 @@", b"@@ -1,999999999 +1,999999999 @@", 15),
        (b"a/d/f.py b/d/f.py", b"a/" + b" b/" * 500_000, 6),
        (b"@@ -1,3 +1,3 @@", b"@@ -1,4 +1,4 @@", 15),
        (b"@@ -1,3 +1,3 @@", b"@@ -1,2 +1,2 @@", 14),
        (b" d\n", b" d\n+e\n", 15),
        (b" d\n", b" d\nnoise\n", 15),
        (b"-b\n+c\n", b" b\n c\n", 14),
        (b"--- a/d/f.py", b"--- a/d/g.py", 8),
        (b"a/d/f.py b/d/f.py", b"a/d/f.py b/d/g.py", 6),
        (b"a/d/f.py b/d/f.py", b"a/../f.py b/../f.py", 6),
        (b"a/d/f.py b/d/f.py", b"a//etc/f.py b//etc/f.py", 6),
        (b"a/d/f.py b/d/f.py", b"a/.git/f b/.git/f", 6),
        (b"index 0", b"new file mode 100644\nindex 0", 7),
        (b"index 0", b"old mode 100644\nnew mode 100755\nindex 0", 7),
        (b"index 0", b"similarity index 90%\nindex 0", 7),
        (b"0000001..", b"1..", 7),
        (b"diff --git", b"diff --cc", 15),
    ],
)
def test_a_corrupt_patch_is_refused_with_its_line(
    old: bytes, new: bytes, line: int
) -> None:
    assert _GOOD.count(old) >= 1
    with pytest.raises(InputError) as caught:
        parse_patch("p.patch", _GOOD.replace(old, new, 1))
    assert f"p.patch:{line}:" in str(caught.value)
    assert len(str(caught.value)) < 1000


def test_one_file_twice_is_refused() -> None:
    diff = _GOOD[_GOOD.index(b"diff --git") :]
    with pytest.raises(InputError, match="more than once"):
        parse_patch("p.patch", _GOOD + diff)


@pytest.mark.parametrize("path", ["d/f.py", "a b/c", "a b/a", "x b/x b/x"])
def test_a_path_is_what_both_sides_name(path: str) -> None:
    """Even if the separator of the two names occurs in the path."""
    patch = parse_patch("p.patch", _GOOD.replace(b"d/f.py", path.encode()))
    assert [f.path for f in patch.files] == [path]


def test_a_line_of_many_megabytes() -> None:
    long = b"x" * 20_000_000
    patch = parse_patch("p.patch", _GOOD.replace(b"-b\n+c\n", b"-b\n+%s\n" % long))
    [hunk] = patch.files[0].hunks
    assert len(hunk.new[1]) == len(long) + 1
    with pytest.raises(InputError) as caught:
        parse_patch("p.patch", _GOOD.replace(b" d\n", b" d\n" + long + b"\n"))
    assert len(str(caught.value)) < 1000
