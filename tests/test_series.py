"""The series itself: its form for upstream, and its lock."""

from __future__ import annotations

import ast
import difflib
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import black
import pytest

from conftest import IDENTITY, ROOT, Pins, run_verb
from overlaykit.core import git
from overlaykit.core.errors import InputError
from overlaykit.series.lock import lock_target
from overlaykit.series.patches import apply_hunks, parse_patch
from overlaykit.series.quilt import Series, read_header
from overlaykit.trees.tree import Tree
from support.bases import BASES, FIRST, MARKED, REVIVED
from support.forks import forked
from support.one_base import keep_first

TARGETS = ("aiter", *BASES)
_NOT_NEEDED = {("sglang-0.5.22", 8)}
"""Patches of the same series that a base has nothing for, by number."""


def test_the_lock_is_current() -> None:
    done = run_verb("lock", "--check")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("target", TARGETS)
def test_every_prefix_leaves_files_that_parse(target: str, pins: Pins) -> None:
    carried, pristine = pins.overlay[target], pins.tree(target)
    contents: dict[str, bytes] = {}
    for patch in carried.series.patches:
        for diff in patch.files:
            before = contents.get(diff.path) or pristine.read(diff.path)
            assert before is not None
            after = apply_hunks(before, diff.hunks)
            assert after is not None
            ast.parse(after)
            contents[diff.path] = after


@pytest.mark.parametrize("target", TARGETS)
def test_patches_quote_little_context(target: str, pins: Pins) -> None:
    """At most three lines of context, to copy little of upstream's sources."""
    for patch in pins.overlay[target].series.patches:
        for diff in patch.files:
            for hunk in diff.hunks:
                tags = "".join(tag for tag, _ in hunk.lines)
                outer = (len(tags) - len(tags.lstrip(" ")), len(tags.rstrip(" ")))
                assert outer[0] <= 3
                assert len(tags) - outer[1] <= 3


@pytest.mark.parametrize("target", TARGETS)
def test_headers(target: str, pins: Pins) -> None:
    for patch in pins.overlay[target].series.patches:
        header = read_header(patch)
        forwarded = header.fields["Forwarded"]
        assert forwarded.startswith("https://github.com/") or target in REVIVED
        assert target not in REVIVED or forwarded == "no"
        assert len(header.subject) <= 72
        assert header.body.count("\n") > 3
        assert header.sites


@pytest.mark.parametrize("target", MARKED)
def test_all_sites_are_covered_once(target: str, pins: Pins) -> None:
    sites = [
        site
        for patch in pins.overlay[target].lock.patches
        for file in patch.files
        for hunk in file.hunks
        for site in hunk.sites
    ]
    assert sorted(sites) == ["C", *(f"S{n}" for n in range(1, 9))]


@pytest.mark.parametrize("target", REVIVED)
def test_the_guard_is_opened_last(target: str, pins: Pins) -> None:
    """Each fault behind the guard is mended before anything can reach it; the last
    patch alone names the guard's scope for every producer."""
    *before, last = pins.overlay[target].lock.patches
    opened = {site for file in last.files for hunk in file.hunks for site in hunk.sites}
    assert opened == {f"S{n}" for n in range(1, 9)}
    assert last.name == "0009-open-for-native.patch"
    numbers = [f"{n:04}" for n in range(1, 9) if (target, n) not in _NOT_NEEDED]
    assert [patch.name[:4] for patch in before] == numbers


@pytest.mark.parametrize("target", TARGETS)
def test_upstreams_own_formatting(target: str, pins: Pins, tmp_path: Path) -> None:
    """black, isort, ruff and codespell as upstream's pre-commit configuration has them
    (its versions are pinned in the dependency group test). What they would change in
    the release itself is upstream's; the series adds nothing to it."""
    pristine, patched = pins.tree(target), pins.patched(target)
    names = []
    for path in pins.overlay[target].paths:
        before, after = (
            (tree.read(path) or b"").decode() for tree in (pristine, patched)
        )
        if lines := changed_lines(before, after):
            assert black.format_str(after, mode=black.Mode(), lines=lines) == after
        names.append(path)
    if target != "aiter":
        sorted_imports = [_isort(tree, names, tmp_path) for tree in (pristine, patched)]
        assert sorted_imports[0] == sorted_imports[1]
        assert target != FIRST or not sorted_imports[0]
    ours = [str(p) for p in sorted((ROOT / "overlay").rglob("*.py"))]
    for tool in (
        ["ruff", "check", "--isolated", "--quiet", "--select=F401,F821"],
        ["codespell_lib"],
    ):
        run = [sys.executable, "-m", *tool, *ours]
        done = subprocess.run(run, capture_output=True, text=True, check=False)
        assert done.returncode == 0, (tool, done.stdout, done.stderr)


def changed_lines(before: str, after: str) -> list[tuple[int, int]]:
    """The first and last numbers of the lines that ``after`` has and ``before`` has
    not."""
    matcher = difflib.SequenceMatcher(
        None, before.splitlines(), after.splitlines(), autojunk=False
    )
    return [(op[3] + 1, op[4]) for op in matcher.get_opcodes() if op[4] > op[3]
            and op[0] != "equal"]  # fmt: skip


def _isort(tree: Tree, paths: Sequence[str], folder: Path) -> list[str]:
    """The lines that isort would change."""
    with tempfile.TemporaryDirectory(dir=folder) as room:
        places = []
        for path in paths:
            if (data := tree.read(path)) is not None:
                place = Path(room) / path
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_bytes(data)
                places.append(str(place))
        command = [sys.executable, "-m", "isort", "--diff", "--profile=black"]
        done = subprocess.run(
            [*command, "-p=sglang", *places], capture_output=True, text=True, check=True
        )
    return [x for x in done.stdout.splitlines() if re.match(r"[-+](?!--|\+\+)", x)]


def _relock(pins: Pins, old: bytes, new: bytes) -> None:
    """Lock the aiter series with an edit in its patch."""
    carried = pins.overlay["aiter"]
    [patch] = carried.series.patches
    assert old in patch.data
    edited = parse_patch(patch.name, patch.data.replace(old, new))
    lock_target(
        carried.target,
        pins.tree("aiter"),
        carried.lock.dist,
        Series((edited,)),
        carried.new_files,
        None,
    )


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        (b"\n     group_size,\n", b"\n     group_sizes,\n", "does not fit"),
        (b"index 42ca53", b"index 52ca53", "does not fit"),
        (b"..af14ea", b"..bf14ea", "promises blob"),
        (b"Forwarded:", b"Forwarted:", "lacks Forwarded"),
        (b"X-Sites: fused_flatten", b"X-Sites: flattened", "no hunk changes"),
    ],
)
def test_the_lock_refuses_a_damaged_patch(
    pins: Pins, old: bytes, new: bytes, says: str
) -> None:
    with pytest.raises(InputError, match=says):
        _relock(pins, old, new)


def test_a_hunk_whose_context_has_a_twin_is_refused(pins: Pins) -> None:
    """Without its unique lines, the hunk of the signature fits many functions."""
    carried, pristine = pins.overlay["aiter"], pins.tree("aiter")
    [path] = carried.series.paths
    lines = (pristine.read(path) or b"").splitlines(keepends=True)
    at = next(i for i, line in enumerate(lines) if line == b"    M, N1 = inp1.shape\n")
    assert lines.count(lines[at]) > 1
    edited = [*lines[: at + 1], b"    pass\n", *lines[at + 1 :]]
    from overlaykit.core.objects import blob_id

    before, after = b"".join(lines), b"".join(edited)
    diff = (
        (
            f"diff --git a/{path} b/{path}\n"
            f"index {blob_id(before)}..{blob_id(after)} 100644\n"
            f"--- a/{path}\n+++ b/{path}\n@@ -{at + 1} +{at + 1},2 @@\n"
        ).encode()
        + b" "
        + lines[at]
        + b"+    pass\n"
    )
    [patch] = carried.series.patches
    series = Series((parse_patch("twin.patch", patch.header + diff),))
    with pytest.raises(InputError, match="context is not unique"):
        lock_target(carried.target, pristine, carried.lock.dist, series, (), None)


def test_the_lock_records_the_commit_that_a_clone_knows(
    slim: Callable[..., Path], carrier: Path
) -> None:
    """And keeps it; a clone whose tag has other files is refused."""
    keep_first(carrier)

    def lock(*arguments: str) -> tuple[int, str | None]:
        done = forked(carrier / "scripts" / "lock.py", arguments)
        written = json.loads((carrier / "overlay.lock").read_bytes())
        return done.returncode, written["targets"]["sglang"]["commit"]

    clone = slim()
    assert lock("--clone", str(clone)) == (0, None)
    git.run(clone, "tag", "v0.5.11")
    commit = git.text(clone, "rev-parse", "HEAD")
    assert lock("--clone", str(clone)) == (0, commit)
    assert lock() == (0, commit)
    assert lock("--check") == (0, commit)
    assert run_verb("apply", str(clone)).returncode == 0
    git.run(clone, "commit", "-q", "-a", "-m", "edited", env=IDENTITY)
    git.run(clone, "tag", "-f", "v0.5.11")
    assert lock("--clone", str(clone)) == (2, commit)
