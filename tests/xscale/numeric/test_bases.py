"""The numeric proof on the second base: every site on each route, without the matrix.

``verify --numeric`` runs the reduced matrix on any base; the tests run it on the first
one. For the others they test only what a rebase could break: that each site's code is
right in its new place.
"""

from __future__ import annotations

import importlib.util

import pytest

from conftest import Pins
from overlaykit.trees.tree import EditedTree, Tree
from xscale.census import take_census
from xscale.numeric import Case, CaseResult, Chain, findings_of, run, summarize
from xscale.numeric.cases import BPRESHUFFLE, TRITON
from xscale.regenerate import Edit, regenerate

from .test_numeric import MHA, SITES

SECOND = "sglang-0.5.12.post1"


def proved(
    pins: Pins, tree: Tree, base: str, cases: tuple[Case, ...]
) -> tuple[CaseResult, ...]:
    return run(tree, pins.patched("aiter"), cases, pristine=pins.tree(base))


def test_the_second_base_holds(pins: Pins, kernels: None) -> None:
    outcomes = proved(pins, pins.patched(SECOND), SECOND, BPRESHUFFLE + TRITON)
    assert [f.lines() for f in findings_of(outcomes)] == []
    assert all(outcome.ok for outcome in outcomes)
    assert {row.site for row in summarize(outcomes)} == SITES
    asked = [o for o in outcomes if o.asked and not o.case.chain.gathers]
    assert asked
    assert {o.relayouts for o in asked} == {0}


def test_a_regenerated_call_holds(pins: Pins, kernels: None) -> None:
    """A call whose text cannot be merged: the regenerated call is right by bytes."""
    if importlib.util.find_spec("libcst") is None:
        pytest.skip("regenerating hunks needs libcst")
    call = b"q, _, _, _ = fused_rms_fp8_group_quant(\n                    q,"
    other = b"q, _, _, _unused = fused_rms_fp8_group_quant(\n                    q,"
    text = pins.tree("sglang").read(MHA) or b""
    assert text.count(call) == 1
    reworded = text.replace(call, other)
    patched = pins.patched("sglang", without=["forward-mha"])
    hunks = [
        hunk
        for patch in pins.overlay["sglang"].lock.patches
        for file in patch.files
        for hunk in file.hunks
        if file.path == MHA
    ]
    for hunk in hunks:
        tree = EditedTree(patched, {MHA: reworded})
        rows = [r for r in take_census(tree, "python/sglang/").rows if r.path == MHA]
        imports = () if hunk.sites else ("quant_pretransposed_scale",)
        made = regenerate(
            Edit(hunk.sites, hunk.scope, imports),
            reworded,
            rows,
            module_scope=not hunk.sites,
        )
        assert made is not None
        reworded = made
    tree = EditedTree(patched, {MHA: reworded})
    cases = (Case(Chain.MHA, 3), Case(Chain.MHA_NSA, 3))
    outcomes = proved(pins, tree, "sglang", cases)
    assert outcomes and all(outcome.ok for outcome in outcomes)
    assert {r.site for o in outcomes for r in o.readings} == {"S5", "S6", "S7"}
    assert {o.relayouts for o in outcomes} == {0}
