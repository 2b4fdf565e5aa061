"""Origins of real trees: the pinned releases, with and without the series."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest

from conftest import ROOT, run_verb
from gatekit.records import origins
from overlaykit.core.errors import InputError

LOCK = f"sha256:{hashlib.sha256((ROOT / 'overlay.lock').read_bytes()).hexdigest()}"


def test_origin_of_pristine_and_patched_trees(slim: Callable[..., Path]) -> None:
    trees = [slim(), slim("aiter", "aiter")]
    released = origins.of_trees(trees, ROOT)
    assert released.series == "none"
    assert run_verb("apply", *map(str, trees)).returncode == 0
    patched = origins.of_trees(trees, ROOT)
    assert patched.series == LOCK
    assert origins.of_trees(trees[::-1], ROOT) == patched
    # One name and tree id for each target; every id has changed.
    before, after = (
        dict(map(str.split, o.tree.split("; "))) for o in (released, patched)
    )
    assert set(before) == set(after) == {"aiter", "sglang"}
    assert not set(before.values()) & set(after.values())


def test_partly_patched_or_edited_trees_are_refused(slim: Callable[..., Path]) -> None:
    one, other = slim(), slim("aiter", "aiter")
    assert run_verb("apply", str(one)).returncode == 0
    with pytest.raises(InputError) as caught:
        origins.of_trees([one, other], ROOT)
    assert "aiter: pristine" in str(caught.value)
    edited = one / "python/sglang/srt/layers/communicator.py"
    edited.write_bytes(edited.read_bytes() + b"# mine\n")
    with pytest.raises(
        InputError, match=r"is not a known tree|the trees have part of the series"
    ):
        origins.of_trees([one], ROOT)
