"""A site's liveness is the result of running the tree's own code, never a guess."""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Mapping
from pathlib import Path

import pytest

from conftest import ROOT, Pins
from overlaykit.core.errors import EnvironmentFailure
from overlaykit.sources.releases import release_tree
from overlaykit.trees.tree import EditedTree, Tree
from xscale.census import take_census
from xscale.liveness import NEVER_RUNS, Life, LiveState, probe, with_lives
from xscale.numeric import client
from xscale.numeric.formats import (
    COMPRESSED_BLOCK,
    COMPRESSED_CHANNEL,
    MXFP8,
    NATIVE_BLOCK_FP8,
    PER_CHANNEL_FP8,
    QUARK_CHANNEL,
    Format,
    format_of,
)

SITES = {f"S{number}" for number in range(1, 9)}
SRT = "python/sglang/srt"
UTILS = f"{SRT}/models/deepseek_common/utils.py"
LAYER = f"{SRT}/models/deepseek_v2.py"
METHODS = f"{SRT}/models/deepseek_common/attention_forward_methods"


def release(pins: Pins, version: str) -> Tree:
    try:
        return release_tree(ROOT, pins.overlay["sglang"].target, version)
    except EnvironmentFailure as error:
        pytest.skip(f"the release is not available: {error}")


def edited(tree: Tree, path: str, old: str, new: str) -> Tree:
    data = (tree.read(path) or b"").decode()
    assert old in data
    return EditedTree(tree, {path: data.replace(old, new).encode()})


def by_state(states: Mapping[str, LiveState]) -> dict[Life, set[str]]:
    found: dict[Life, set[str]] = {}
    for site, state in states.items():
        found.setdefault(state.state, set()).add(site)
    return found


def test_the_pin_is_live(pins: Pins, kernels: None) -> None:
    """And each site's place is where its kernel is called."""
    tree = pins.tree("sglang")
    states = probe(tree, pins.patched("aiter"))
    assert by_state(states) == {Life.LIVE: SITES}
    for state in states.values():
        assert state.path is not None and state.line is not None
        lines = (tree.read(state.path) or b"").decode().splitlines()
        kernel = state.reason.partition(" ")[0]
        assert kernel in lines[state.line - 1]


@pytest.mark.slow("releases of upstream are run")
@pytest.mark.parametrize("version", ["0.5.10.post1", "0.5.13", "0.5.17"])
def test_live_releases(pins: Pins, kernels: None, version: str) -> None:
    assert by_state(probe(release(pins, version), pins.patched("aiter"))) == {
        Life.LIVE: SITES
    }


@pytest.mark.slow("releases of upstream are run")
@pytest.mark.parametrize("version", ["0.5.18", "0.5.21", "0.5.22", "0.5.23"])
def test_dead_releases(pins: Pins, kernels: None, version: str) -> None:
    """Each guard is a test in the tree, and what it looked for is named."""
    tree = release(pins, version)
    states = probe(tree, pins.patched("aiter"))
    assert by_state(states) == {Life.DEAD: SITES}
    for state in states.values():
        assert state.path is not None and state.line is not None
        lines = (tree.read(state.path) or b"").decode().splitlines()
        assert re.match(r"\s*(el)?if ", lines[state.line - 1]), state
        assert "weight_scale, which" in state.reason
        assert "it has weight, weight_scale_inv" in state.reason
        assert state.reads


@pytest.mark.slow("releases of upstream are run")
def test_an_opened_guard(pins: Pins, kernels: None) -> None:
    """0.5.23 with both tests reading the attribute that native block FP8 has."""
    tree = release(pins, "0.5.23")
    for path in (UTILS, LAYER):
        old = 'getattr(proj, "weight_scale", None)'
        tree = edited(tree, path, old, old.replace("scale", "scale_inv"))
    states = probe(tree, pins.patched("aiter"))
    assert by_state(states) == {Life.LIVE: SITES}
    # It lets MXFP8 through as well, whose groups are other ones.
    mx = probe(tree, pins.patched("aiter"), MXFP8)
    assert by_state(mx) == {Life.LIVE: SITES}


def test_a_tree_of_the_same_name_was_run_before(pins: Pins, kernels: None) -> None:
    """The layer's own detection is found by its lines, which were others then."""
    start = "class DeepseekV2DecoderLayer"
    longer = edited(pins.tree("sglang"), LAYER, start, 40 * "# More.\n" + start)
    same = EditedTree(pins.tree("sglang"), {})
    assert longer.name == same.name
    for tree in (longer, same):
        assert by_state(probe(tree, pins.patched("aiter"))) == {Life.LIVE: SITES}


@pytest.mark.parametrize(
    ("path", "old", "new", "dead"),
    [
        (
            f"{METHODS}/forward_mla.py",
            "and self.q_b_proj.weight.dtype == torch.float8_e4m3fn",
            "and hasattr(self.q_b_proj, 'weight_scale')",
            {"S3", "S4"},
        ),
        (
            f"{METHODS}/forward_mha.py",
            "and self.kv_b_proj.weight.dtype == torch.float8_e4m3fn",
            "and self.kv_b_proj.weight.dtype == torch.int8",
            {"S7"},
        ),
        # The decision is made in another function than the kernel's.
        (
            LAYER,
            'torch, "float8_e4m3fn", None):\n            return "fp8"',
            'torch, "float8_e4m3fn", None):\n            return ""',
            {"S1", "S2"},
        ),
        # The registration itself, which no test in the model mentions.
        (
            f"{SRT}/layers/quantization/fp8.py",
            "torch.float8_e4m3fn if self.is_checkpoint_fp8_serialized else",
            "torch.float8_e5m2 if self.is_checkpoint_fp8_serialized else",
            SITES,
        ),
    ],
    ids=["its own guard", "one of two", "another function", "the registration"],
)
def test_a_shut_guard_of_the_pin(
    pins: Pins, kernels: None, path: str, old: str, new: str, dead: set[str]
) -> None:
    tree = edited(pins.tree("sglang"), path, old, new)
    states = by_state(probe(tree, pins.patched("aiter")))
    assert states.get(Life.DEAD, set()) == dead
    assert states.get(Life.LIVE, set()) == SITES - dead


def test_what_cannot_be_driven_alone_is_not_run(pins: Pins, kernels: None) -> None:
    """Without the decoder layer, its two sites; the others are run."""
    tree = edited(
        pins.tree("sglang"), LAYER, "class DeepseekV2DecoderLayer", "class Renamed"
    )
    states = probe(tree, pins.patched("aiter"))
    assert by_state(states) == {
        Life.NOT_RUN: {"S1", "S2"},
        Life.LIVE: SITES - {"S1", "S2"},
    }
    assert "DeepseekV2DecoderLayer" in states["S1"].reason


@pytest.mark.slow("releases of upstream are run")
@pytest.mark.parametrize("form", [PER_CHANNEL_FP8, QUARK_CHANNEL, MXFP8], ids=str)
def test_other_formats(pins: Pins, kernels: None, form: Format) -> None:
    """Until 0.5.17 the guards let any e4m3 weight through, whatever its groups."""
    aiter = pins.patched("aiter")
    assert by_state(probe(release(pins, "0.5.17"), aiter, form)) == {Life.LIVE: SITES}
    assert by_state(probe(release(pins, "0.5.23"), aiter, form)) == {Life.DEAD: SITES}


@pytest.mark.slow("releases of upstream are run")
def test_block_fp8_of_compressed_tensors(pins: Pins, kernels: None) -> None:
    """Its linears have the attribute that the guards of 0.5.18 and later read."""
    pytest.importorskip("compressed_tensors")
    aiter = pins.patched("aiter")
    for tree in (release(pins, "0.5.23"), pins.patched("sglang-0.5.23")):
        assert by_state(probe(tree, aiter, COMPRESSED_BLOCK)) == {Life.LIVE: SITES}
        assert by_state(probe(tree, aiter, COMPRESSED_CHANNEL)) == {Life.DEAD: SITES}


def test_a_format_whose_reader_is_missing(pins: Pins, kernels: None) -> None:
    tree, aiter = pins.tree("sglang"), pins.patched("aiter")
    if importlib.util.find_spec("compressed_tensors") is None:
        states = probe(tree, aiter, COMPRESSED_BLOCK)
        assert by_state(states) == {Life.NOT_RUN: SITES}
        assert "compressed_tensors is not installed" in states["S3"].reason
    unknown = Format.of("theirs", {"quant_method": "theirs"})
    states = probe(tree, aiter, unknown)
    assert by_state(states) == {Life.NOT_RUN: SITES}
    assert "'theirs'" in states["S8"].reason


def test_without_pytorch_nothing_is_run(
    pins: Pins, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "torch.py").write_text("raise ImportError('not here')\n")
    others = os.environ.get("PYTHONPATH", "")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{others}")
    monkeypatch.setattr(client, "_workers", {})
    states = probe(pins.tree("sglang"), pins.patched("aiter"))
    assert by_state(states) == {Life.NOT_RUN: SITES}
    assert "PyTorch cannot be imported" in states["S1"].reason


def test_a_census_with_states(pins: Pins) -> None:
    census = take_census(pins.tree("sglang"), within="python/sglang/")
    states = {
        "S1": LiveState("S1", Life.LIVE),
        "S2": LiveState("S2", Life.DEAD, "a.py", 7, "x is ''"),
        "S3": LiveState("S3", Life.NOT_RUN, reason="why"),
    }
    rows = {row.site: row for row in with_lives(census, states).rows}
    assert [rows[site].live for site in ("S1", "S2", "S3", "C")] == [
        True, False, None, None,
    ]  # fmt: skip
    assert rows["S2"].detail.endswith(f"{NEVER_RUNS}a.py:7: x is ''")


def test_formats_of_checkpoints() -> None:
    assert format_of(None) is None
    native = {**NATIVE_BLOCK_FP8.config, "modules_to_not_convert": ["lm_head"]}
    found = format_of(native)
    assert found is not None and found.name == NATIVE_BLOCK_FP8.name
    assert found.config == native
    other = format_of({"quant_method": "awq"})
    assert other is not None and (other.name, other.reader) == (
        "awq of this checkpoint",
        None,
    )
