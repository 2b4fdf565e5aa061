"""The cache returns the saved facts or nothing."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from conftest import Pins, give_modules
from overlaykit.series.lock import LOCK
from upstream import cache
from upstream.cache import FactsCache
from upstream.facts import Facts, facts_of
from xscale.numeric.inputs import surroundings


@pytest.fixture(scope="module")
def facts(pins: Pins) -> Facts:
    return facts_of(pins.overlay["sglang"], pins.tree("sglang"), pins.tree("sglang"))


def entry_of(root: Path) -> Path:
    [entry] = (root / "build" / "cache" / "drift").iterdir()
    return entry


def test_load_returns_what_save_wrote(overlay: Path, facts: Facts) -> None:
    kept = FactsCache(overlay)
    assert kept.load("sglang", "tree") is None
    kept.save("sglang", "tree", facts)
    assert kept.load("sglang", "tree") == facts
    assert kept.load("sglang", "other tree") is None
    assert kept.load("aiter", "tree") is None


def _truncate(data: bytes) -> bytes:
    return data[: len(data) // 2]


def _flip(data: bytes) -> bytes:
    """Valid JSON and valid facts, but another line number."""
    assert data.count(b'"line":783') == 1
    return data.replace(b'"line":783', b'"line":784')


def _empty(data: bytes) -> bytes:
    return b""


def _foreign(data: bytes) -> bytes:
    entry = json.loads(data)
    return json.dumps(entry | {"key": "0" * 64}).encode()


@pytest.mark.parametrize("damage", [_truncate, _flip, _empty, _foreign])
def test_a_damaged_entry_is_ignored(
    overlay: Path, facts: Facts, damage: Callable[[bytes], bytes]
) -> None:
    kept = FactsCache(overlay)
    kept.save("sglang", "tree", facts)
    entry = entry_of(overlay)
    entry.write_bytes(damage(entry.read_bytes()))
    assert kept.load("sglang", "tree") is None
    kept.save("sglang", "tree", facts)
    assert kept.load("sglang", "tree") == facts


def test_an_entry_under_another_name_is_ignored(overlay: Path, facts: Facts) -> None:
    kept = FactsCache(overlay)
    kept.save("sglang", "tree", facts)
    first = entry_of(overlay)
    kept.save("sglang", "other tree", facts)
    [second] = set(first.parent.iterdir()) - {first}
    second.write_bytes(first.read_bytes())
    assert kept.load("sglang", "other tree") is None


def test_another_overlay_or_program_does_not_use_the_entry(
    overlay: Path, facts: Facts, monkeypatch: pytest.MonkeyPatch
) -> None:
    give_modules(overlay)
    FactsCache(overlay).save("sglang", "tree", facts)
    lock = overlay / LOCK
    data = lock.read_bytes()
    lock.write_bytes(data + b"\n")
    cache._digest.cache_clear()
    assert FactsCache(overlay).load("sglang", "tree") is None
    lock.write_bytes(data)
    cache._digest.cache_clear()
    assert FactsCache(overlay).load("sglang", "tree") == facts
    # The program is read from its own folder: a changed one has no entries.
    place = overlay / "scripts" / "upstream" / "cache.py"
    place.write_bytes(place.read_bytes() + b"\n")
    monkeypatch.setattr(cache, "__file__", str(place))
    cache._digest.cache_clear()
    assert FactsCache(overlay).load("sglang", "tree") is None
    cache._digest.cache_clear()


def test_what_is_around_counts(
    overlay: Path, facts: Facts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What running a tree shows may depend on it."""
    FactsCache(overlay).save("sglang", "tree", facts)
    assert FactsCache(overlay, with_kernels=True).load("sglang", "tree") is None
    around = surroundings("cpu")
    assert around is not None
    for name in around:
        if name == "program":
            continue
        with monkeypatch.context() as patch:
            other = around | {name: "another"}
            patch.setattr(cache, "surroundings", lambda _, other=other: other)
            assert FactsCache(overlay).load("sglang", "tree") is None, name
    assert FactsCache(overlay).load("sglang", "tree") == facts
    monkeypatch.setattr(cache, "surroundings", lambda _: None)
    FactsCache(overlay).save("sglang", "tree", facts)
    assert FactsCache(overlay).load("sglang", "tree") is None


def test_facts_that_may_be_others_are_not_kept(overlay: Path, facts: Facts) -> None:
    FactsCache(overlay).save("sglang", "tree", replace(facts, sure=False))
    assert FactsCache(overlay).load("sglang", "tree") is None


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_cache_that_cannot_be_written(overlay: Path, facts: Facts) -> None:
    folder = overlay / "build" / "cache" / "drift"
    folder.mkdir(parents=True)
    folder.chmod(0o500)
    FactsCache(overlay).save("sglang", "tree", facts)
    assert list(folder.iterdir()) == []


def test_a_build_folder_that_is_a_file(overlay: Path, facts: Facts) -> None:
    (overlay / "build").write_bytes(b"")
    kept = FactsCache(overlay)
    kept.save("sglang", "tree", facts)
    assert kept.load("sglang", "tree") is None
