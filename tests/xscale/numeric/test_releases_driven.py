"""Every recorded release is entered through its own layer; an AITER may be a ref."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from conftest import ROOT, Pins, run_verb
from overlaykit.core.errors import EnvironmentFailure
from overlaykit.series.ledger import ledger
from overlaykit.sources.releases import release_tree
from overlaykit.trees.tree import EditedTree, GitTree
from xscale.liveness import Life, probe
from xscale.numeric import Case, CaseResult, Chain
from xscale.numeric.sources import aiter_sources

LAYER = "python/sglang/srt/models/deepseek_v2.py"
CASES = tuple(Case(chain, 2) for chain in Chain)
VERSIONS = sorted(ledger(ROOT).releases["sglang"])
GATHERED = "Tensors must be contiguous"
"""Upstream's own fault: its gather is not aware of a transposed scale's strides."""


@pytest.mark.slow("releases of upstream are run")
@pytest.mark.parametrize("version", VERSIONS)
def test_every_driver_runs(
    pins: Pins, prove: Callable[..., tuple[CaseResult, ...]], version: str
) -> None:
    try:
        tree = release_tree(ROOT, pins.overlay["sglang"].target, version)
    except EnvironmentFailure as error:
        pytest.skip(f"the release is not available: {error}")
    for outcome in prove(tree, CASES, compare=False):
        case = outcome.case
        if case.chain.over_c10d and GATHERED in (outcome.raised or ""):
            continue
        assert outcome.raised is None, case
        # Without a pair there is nothing that the indexer could dequantize.
        if case.chain is not Chain.INDEXER:
            assert {r.site for r in outcome.readings} == case.sites, case
        assert not any("gets no scale" in f.what for f in outcome.findings), case


def test_a_driver_that_cannot_run_says_so(
    pins: Pins, prove: Callable[..., tuple[CaseResult, ...]]
) -> None:
    """And it alone: what does not enter through the layer is run."""
    data = pins.tree("sglang").read(LAYER) or b""
    renamed = data.replace(b"class DeepseekV2DecoderLayer", b"class Renamed")
    tree = EditedTree(pins.tree("sglang"), {LAYER: renamed})
    cases = (Case(Chain.RESIDUAL_NSA, 2), Case(Chain.MLA_NSA, 2), Case(Chain.CORE, 2))
    missing, *others = prove(tree, cases, compare=False)
    assert missing.raised is not None
    assert "input: the tree has no DeepseekV2DecoderLayer to enter" in missing.raised
    assert [outcome.raised for outcome in others] == [None, None]


def test_an_aiter_of_a_bare_clone(pins: Pins, kernels: None, tmp_path: Path) -> None:
    patched = pins.patched("aiter")
    clone, bare = tmp_path / "clone", tmp_path / "bare.git"
    for path, data in aiter_sources(patched).modules.values():
        place = clone / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(data)
    who = ("-c", "user.name=a", "-c", "user.email=a@example.org")
    for command in (
        ("init", "-q", str(clone)),
        ("-C", str(clone), "add", "."),
        ("-C", str(clone), *who, "commit", "-q", "-m", "AITER"),
        ("-C", str(clone), "tag", "v0"),
        ("clone", "-q", "--bare", str(clone), str(bare)),
    ):
        subprocess.run(["git", *command], check=True)
    with GitTree(bare, "v0") as tree:
        found = aiter_sources(tree)
        assert found.modules == aiter_sources(patched).modules
        states = probe(pins.tree("sglang"), tree)
    assert {state.state for state in states.values()} == {Life.LIVE}


def test_a_ref_needs_its_clone(tmp_path: Path) -> None:
    done = run_verb("verify", "--numeric", "--aiter-ref", "v0", str(tmp_path))
    assert done.returncode == 2
    assert "--aiter-ref needs --aiter" in done.stderr
