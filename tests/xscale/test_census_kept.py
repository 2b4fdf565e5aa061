"""A kept census is the one that is taken."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from conftest import Pins
from overlaykit.core.kept import Kept
from overlaykit.trees.tree import EditedTree, Tree
from xscale.census import Census, kept, kept_census, take_census
from xscale.census.kept import Taken
from xscale.census.rows import files_of

PACKAGE = "python/sglang/"
THEIRS = {
    f"{PACKAGE}helper.py": b"def hand(x):\n    return x\n",
    f"{PACKAGE}user.py": b"""
from aiter import fused_rms_fp8_group_quant
from sglang.helper import hand

def f(x, weight, gemm):
    (q, scale), *_ = hand(fused_rms_fp8_group_quant(x, weight, 1e-6))
    gemm(q, scale)
""",
}
"""A producer, and a module that the census reads only because of it."""


@dataclass(frozen=True)
class Files:
    """A tree with a few files."""

    files: Mapping[str, bytes]
    name: str = "few"

    def read(self, path: str) -> bytes | None:
        return self.files.get(path)

    def holds(self, path: str) -> bool:
        return True

    def paths(self) -> Iterator[str]:
        return iter(self.files)


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Kept[Taken]:
    """An empty store instead of the overlay's."""
    empty: Kept[Taken] = Kept(tmp_path / "census", Taken)
    monkeypatch.setattr(kept, "_KEPT", empty)
    return empty


def _never(*_: object) -> Any:
    raise AssertionError("a census is taken")


@pytest.fixture
def no_census(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "census_of", _never)


def read_by(store: Kept[Taken], tmp_path: Path) -> set[str]:
    """The files that the one entry names."""
    [entry] = (tmp_path / "census").iterdir()
    found = store.load(entry.stem)
    assert found is not None
    return set(found.read)


def test_a_kept_census_is_the_same(
    pins: Pins, store: Kept[Taken], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two pinned releases, with and without their series."""
    trees: list[Tree] = [
        tree
        for name in ("sglang", "sglang-0.5.23")
        for tree in (pins.tree(name), pins.patched(name))
    ]
    taken = [take_census(tree, PACKAGE) for tree in trees]
    assert [kept_census(tree, PACKAGE) for tree in trees] == taken
    with monkeypatch.context() as patch:
        patch.setattr(kept, "census_of", _never)
        assert [kept_census(tree, PACKAGE) for tree in trees] == taken
    assert len({tuple(census.rows) for census in taken}) > 2


def test_an_edit_of_any_file_that_it_reads_counts(
    pins: Pins, store: Kept[Taken], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files that it starts from, files that they import, and files that would be
    imported if they were there."""
    whole = pins.patched("sglang")
    few = dict(files_of(whole, PACKAGE)) | THEIRS
    tree = Files(few)
    kept_census(tree, PACKAGE)
    read = read_by(store, tmp_path)
    missing = {path for path in read if tree.read(path) is None}
    assert missing
    assert read - missing == {f"{PACKAGE}helper.py"}
    monkeypatch.setattr(kept, "census_of", _never)
    assert kept_census(tree, PACKAGE) == take_census(tree, PACKAGE)
    for path in {*few, *read}:
        edited = Files(few | {path: few.get(path, b"") + b"\n"})
        with pytest.raises(AssertionError, match="a census is taken"):
            kept_census(edited, PACKAGE)
        if path not in missing:
            gone = Files({other: data for other, data in few.items() if other != path})
            with pytest.raises(AssertionError, match="a census is taken"):
                kept_census(gone, PACKAGE)


def test_another_file_with_a_kernel_counts(
    pins: Pins, store: Kept[Taken], no_census: None
) -> None:
    tree = pins.patched("sglang")
    more = EditedTree(tree, {f"{PACKAGE}more.py": b"x = 'transpose_scale'\n"})
    with pytest.raises(AssertionError, match="a census is taken"):
        kept_census(more, PACKAGE)


def test_the_folder_and_the_program_count(
    pins: Pins, store: Kept[Taken], monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = pins.patched("sglang")
    kept_census(tree, PACKAGE)
    monkeypatch.setattr(kept, "census_of", _never)
    with pytest.raises(AssertionError, match="a census is taken"):
        kept_census(tree, f"{PACKAGE}srt/layers/")
    monkeypatch.setattr(kept, "of_program", lambda *_: "another")
    with pytest.raises(AssertionError, match="a census is taken"):
        kept_census(tree, PACKAGE)


def test_a_damaged_census_is_taken_again(
    pins: Pins, store: Kept[Taken], tmp_path: Path
) -> None:
    tree = pins.patched("sglang")
    taken: Census = kept_census(tree, PACKAGE)
    [entry] = (tmp_path / "census").iterdir()
    data = entry.read_bytes()
    entry.write_bytes(data.replace(b'"gone"', b'"unknown"').replace(b"S3", b"S4"))
    assert kept_census(tree, PACKAGE) == taken
    assert entry.read_bytes() == data
