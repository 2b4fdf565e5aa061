"""Kept answers: what was saved, or nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from conftest import ROOT
from overlaykit.core.kept import Kept, key_of

KEY = key_of({"a": "1"})


def kept(folder: Path, most_bytes: int = 1 << 20) -> Kept[dict[str, int]]:
    return Kept(folder, dict[str, int], most_bytes)


def test_load_returns_what_save_wrote(tmp_path: Path) -> None:
    store = kept(tmp_path / "new")
    assert store.load(KEY) is None
    store.save(KEY, {"x": 1})
    assert store.load(KEY) == kept(tmp_path / "new").load(KEY) == {"x": 1}
    assert store.load(key_of({"a": "2"})) is None


def test_every_input_counts() -> None:
    """By its name too: two inputs do not run into each other."""
    keys = [
        key_of(inputs)
        for inputs in ({}, {"a": "1"}, {"a": "12"}, {"a1": "2"}, {"a": "1", "b": ""})
    ]
    assert len(set(keys)) == len(keys)
    assert key_of({"a": "1", "b": "2"}) == key_of({"b": "2", "a": "1"})


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[: len(data) // 2],
        lambda data: data.replace(b'"x":1', b'"x":2'),
        lambda data: data.replace(b'"x":1', b'"x":"1"'),
        lambda _: b"",
        lambda _: b"\xff\xfe",
        lambda _: b"[" * 100_000,
        lambda data: json.dumps(json.loads(data) | {"key": "0" * 64}).encode(),
        lambda data: json.dumps(json.loads(data) | {"more": 1}).encode(),
    ],
    ids=["cut", "changed", "type", "empty", "binary", "deep", "foreign", "more"],
)
def test_a_damaged_entry_is_computed_again(
    tmp_path: Path, damage: Callable[[bytes], bytes]
) -> None:
    store = kept(tmp_path)
    store.save(KEY, {"x": 1})
    [entry] = tmp_path.iterdir()
    entry.write_bytes(damage(entry.read_bytes()))
    assert store.load(KEY) is None
    store.save(KEY, {"x": 1})
    assert store.load(KEY) == {"x": 1}


def test_an_entry_under_the_name_of_another(tmp_path: Path) -> None:
    store = kept(tmp_path)
    store.save(KEY, {"x": 1})
    [entry] = tmp_path.iterdir()
    other = key_of({"a": "2"})
    entry.rename(entry.with_name(entry.name.replace(KEY, other)))
    assert store.load(other) is None


def test_the_folder_is_bounded(tmp_path: Path) -> None:
    """What was not needed for longest is removed first."""
    one = len("x") * 1000
    store = kept(tmp_path, 20 * one)
    keys = [key_of({"n": str(n)}) for n in range(60)]
    for number, key in enumerate(keys):
        store.save(key, {"x" * one: number})
        os.utime(tmp_path / f"{key}.json", ns=(number, number))
        if number == 10:
            # Needed again, so it is not the oldest any more.
            assert store.load(keys[0]) is not None
    left = sum(file.stat().st_size for file in tmp_path.iterdir())
    assert left <= 20 * one
    assert store.load(keys[0]) is not None
    assert store.load(keys[1]) is None
    assert store.load(keys[-1]) is not None


@pytest.mark.parametrize("obstacle", ["a file", "a folder in its place"])
def test_a_folder_that_cannot_be_written(tmp_path: Path, obstacle: str) -> None:
    if obstacle == "a file":
        (tmp_path / "kept").write_bytes(b"")
    else:
        (tmp_path / "kept" / f"{KEY}.json").mkdir(parents=True)
    store = kept(tmp_path / "kept")
    store.save(KEY, {"x": 1})
    assert store.load(KEY) is None


def test_processes_write_at_the_same_time(tmp_path: Path) -> None:
    """Whatever a process reads meanwhile is a whole entry."""
    work = (
        "import sys; sys.path.insert(0, sys.argv[1]); from pathlib import Path; "
        "from overlaykit.core.kept import Kept, key_of; "
        "store = Kept(Path(sys.argv[2]), dict[str, int], 2000); "
        "keys = [key_of({'n': str(n)}) for n in range(5)]; "
        "found = [store.save(k, {'x' * 300: n}) or store.load(k) "
        "for _ in range(200) for n, k in enumerate(keys)]; "
        "assert all(f in (None, {'x' * 300: n}) for n, f in zip(list(range(5)) * 200, "
        "found))"
    )
    command = [sys.executable, "-c", work, str(ROOT / "scripts"), str(tmp_path)]
    running = [subprocess.Popen(command) for _ in range(3)]
    assert [process.wait() for process in running] == [0, 0, 0]
