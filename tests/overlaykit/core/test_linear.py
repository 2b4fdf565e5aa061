"""The work on a patch is linear in its size, not quadratic.

The tests count instead of timing: bytecodes, and items in list searches. Twice the
patch may cost a little more than twice the work, but not four times.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from types import BuiltinFunctionType, FrameType
from typing import Any

import pytest

from overlaykit.core.objects import blob_id
from overlaykit.refresh.ownership import file_chain
from overlaykit.series.carried import Carried
from overlaykit.series.lock import (
    LockedDist,
    LockedFile,
    LockedHunk,
    LockedPatch,
    LockedTarget,
    lock_target,
)
from overlaykit.series.manifest import Dist, Target
from overlaykit.series.patches import (
    Patch,
    Places,
    apply_hunks,
    parse_patch,
    split_lines,
)
from overlaykit.series.quilt import Series

_SEARCHES = {"count", "index", "remove"}
_LOOK = 10
_HEADER = (
    b"From: A <a@localhost>\nDate: Thu, 1 Jan 2026 00:00:00 +0000\nSubject: x\n\n"
    b"x\n\nForwarded: no\nX-Drop-When: never\nX-Sites: <module>: S1\n---\n\n"
)


def cost(call: Callable[[], object]) -> int:
    """Bytecodes, plus the lengths of the lists that were searched."""
    ran: Counter[str] = Counter()

    def each(frame: FrameType, event: str, _: Any) -> Any:
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        ran[event] += event == "opcode"
        return each

    def searched(_: FrameType, event: str, what: Any) -> None:
        if event == "c_call" and isinstance(what, BuiltinFunctionType):
            inside = what.__self__
            if what.__name__ in _SEARCHES and isinstance(inside, (list, tuple)):
                ran["looked at"] += len(inside)

    sys.settrace(each)
    sys.setprofile(searched)
    try:
        call()
    finally:
        sys.settrace(None)
        sys.setprofile(None)
    return ran["opcode"] + _LOOK * ran["looked at"]


def many_files(files: int) -> bytes:
    diffs = []
    for number in range(files):
        before, after = b"a = %d\n" % number, b"b = %d\n" % number
        ids = b"%s..%s" % (blob_id(before).encode(), blob_id(after).encode())
        name = b"p/f%d.py" % number
        diffs.append(
            b"diff --git a/%s b/%s\nindex %s 100644\n--- a/%s\n+++ b/%s\n"
            b"@@ -1 +1 @@\n-%s+%s" % (name, name, ids, name, name, before, after)
        )
    return _HEADER + b"".join(diffs)


def contents(hunks: int) -> tuple[bytes, bytes]:
    lines = [b"x%d = 0\n" % number for number in range(3 * hunks)]
    after = [
        line.replace(b"= 0", b"= 1") if number % 3 == 1 else line
        for number, line in enumerate(lines)
    ]
    return b"".join(lines), b"".join(after)


def many_hunks(hunks: int) -> bytes:
    before, after = contents(hunks)
    ids = b"%s..%s" % (blob_id(before).encode(), blob_id(after).encode())
    rows = [
        b"@@ -%d,3 +%d,3 @@\n x%d = 0\n-x%d = 0\n+x%d = 1\n x%d = 0\n"
        % (at + 1, at + 1, at, at + 1, at + 1, at + 2)
        for at in range(0, 3 * hunks, 3)
    ]
    head = b"diff --git a/p/f0.py b/p/f0.py\nindex %s 100644\n" % ids
    names = b"--- a/p/f0.py\n+++ b/p/f0.py\n"
    return _HEADER + head + names + b"".join(rows)


class Release:
    """A release with the given files."""

    name = "release"

    def __init__(self, files: dict[str, bytes]) -> None:
        self._files = files

    def read(self, path: str) -> bytes | None:
        return self._files.get(path)

    def holds(self, path: str) -> bool:
        return True

    def paths(self) -> Any:
        return iter(self._files)

    def mode(self, path: str) -> str:
        return "100644"


TARGET = Target("https://localhost/p", "p", "p", Dist("p", "1"))
DIST = LockedDist("p-1-py3-none-any.whl", "0" * 64, 1)


def carried(patch: Patch) -> Carried:
    files = tuple(
        LockedFile(f.path, "100644", f.before, f.after, (LockedHunk("<module>", ()),))
        for f in patch.files
    )
    locked = LockedPatch(patch.name, patch.sha256, files)
    lock = LockedTarget(None, None, DIST, (), (locked,), "")
    return Carried("o", "p", TARGET, Series((patch,)), (), lock)


def ask_all(one: Carried) -> None:
    for path in one.series.paths:
        assert len(one.series.diffs(path)) == len([*one.locked(path)]) == 1
        assert len(one.chains[path]) == 2


def own_all(one: Carried, release: Release) -> None:
    for path in one.series.paths:
        file_chain(one, release, path)


def place_all(patch: Patch, before: bytes) -> None:
    places = Places(split_lines(before))
    for hunk in patch.files[0].hunks:
        assert places.of(hunk.old) == [hunk.old_start]
    assert apply_hunks(before, patch.files[0].hunks) is not None


def lock_all(patch: Patch, release: Release) -> None:
    lock_target(TARGET, release, DIST, Series((patch,)), (), None)


def of_files(files: int) -> tuple[Patch, Release]:
    patch = parse_patch("p.patch", many_files(files))
    contents_of = {f"p/f{number}.py": b"a = %d\n" % number for number in range(files)}
    return patch, Release(contents_of)


def of_hunks(hunks: int) -> tuple[Patch, Release]:
    patch = parse_patch("p.patch", many_hunks(hunks))
    return patch, Release({"p/f0.py": contents(hunks)[0]})


def parse_files(size: int) -> Callable[[], object]:
    data = many_files(size)
    return lambda: parse_patch("p.patch", data)


def parse_hunks(size: int) -> Callable[[], object]:
    data = many_hunks(size)
    return lambda: parse_patch("p.patch", data)


def ask(size: int) -> Callable[[], object]:
    one = carried(of_files(size)[0])
    return lambda: ask_all(one)


def own(size: int) -> Callable[[], object]:
    patch, release = of_files(size)
    one = carried(patch)
    return lambda: own_all(one, release)


def place(size: int) -> Callable[[], object]:
    patch, _ = of_hunks(size)
    before = contents(size)[0]
    return lambda: place_all(patch, before)


def lock_hunks(size: int) -> Callable[[], object]:
    patch, release = of_hunks(size)
    return lambda: lock_all(patch, release)


def lock_files(size: int) -> Callable[[], object]:
    patch, release = of_files(size)
    return lambda: lock_all(patch, release)


@pytest.mark.parametrize(
    "work", [parse_files, parse_hunks, ask, own, place, lock_hunks, lock_files]
)
def test_work_is_linear_in_patch_size(work: Callable[[int], Any]) -> None:
    # A first call, so that imports and caches are not counted.
    cost(work(3))
    once, twice = (cost(work(size)) for size in (150, 300))
    assert twice < 2.3 * once, (once, twice)


def test_every_place_of_a_block_is_found() -> None:
    lines = split_lines(b"a\nb\na\nb\nc\n")
    places = Places(lines)
    assert places.of((b"a\n", b"b\n")) == [1, 3]
    assert places.of((b"b\n", b"c\n")) == [4]
    assert places.of((b"c\n", b"a\n")) == places.of((b"d\n",)) == []
    assert places.of((b"b\n", b"c\n", b"d\n")) == []
    # An empty block fits everywhere.
    assert places.of(()) == [1, 2, 3, 4, 5, 6]
