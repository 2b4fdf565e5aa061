"""The matrix itself: its shapes and gathers can show what they are meant to."""

from __future__ import annotations

import ast
from collections.abc import Callable
from itertools import product
from typing import Any

import pytest

from conftest import Pins
from support.bases import BASES
from xscale.numeric import Case, Chain, Platform, Shape, Switch, reduced_matrix
from xscale.numeric.cases import APART, GROUP, SHAPES
from xscale.numeric.sources import KINDS, LATENT, LAYER, METHOD, sglang_sources

from .test_numeric import FP8_UTILS

_TABLE = "use_aiter_triton_gemm_w8a8_tuned_gfx950"
_PROJECTIONS = ("qkv_a", "wk", "q_b", "kv_b", "o_proj")
_READER = {
    **dict.fromkeys(("S1", "S2"), "qkv_a"),
    **dict.fromkeys(("S3", "S4", "S5", "S6"), "q_b"),
    "S7": "kv_b",
    "S8": "o_proj",
}


@pytest.fixture(scope="module")
def on_triton(pins: Pins) -> Callable[[int, int], bool]:
    """The release's own table of sizes that Triton's GEMM serves."""
    (table,) = (
        node
        for node in ast.parse(pins.tree("sglang").read(FP8_UTILS) or b"").body
        if isinstance(node, ast.FunctionDef) and node.name == _TABLE
    )
    names: dict[str, Any] = {}
    exec(compile(ast.Module([table], []), FP8_UTILS, "exec"), names)
    found: Callable[[int, int], bool] = names[_TABLE]
    return found


def sizes(shape: Shape) -> dict[str, tuple[int, int]]:
    """(n, k) of each projection of the shape."""
    return {
        "qkv_a": (shape.qkv_a, shape.hidden),
        "wk": (shape.wk, shape.hidden),
        "q_b": (shape.heads * (shape.nope + shape.rope), shape.q_lora),
        "kv_b": (shape.heads * (shape.nope + shape.v), shape.kv_lora),
        "o_proj": (shape.hidden, shape.heads * shape.v),
    }


@pytest.mark.parametrize("site", _READER)
@pytest.mark.parametrize("other", _PROJECTIONS)
def test_projections_are_distinguished_both_ways(
    site: str, other: str, on_triton: Callable[[int, int], bool]
) -> None:
    """If a producer asks about a projection that does not read its scale, some case
    gives it the wrong answer, for either GEMM."""
    reader = _READER[site]
    if reader == other:
        pytest.skip("it is the one that reads it")
    seen = {
        (on_triton(*sizes(c.shape)[reader]), on_triton(*sizes(c.shape)[other]))
        for c in reduced_matrix()
        if site in c.sites
        and c.chain.knows_projection
        and (c.platform, c.switch) == (Platform.GFX95, Switch.ON)
        and c.m > 1
    }
    assert {(True, False), (False, True)} <= seen


def test_one_projection_differs(on_triton: Callable[[int, int], bool]) -> None:
    """The shapes match their names."""
    for shape in APART:
        routes = {name: on_triton(*size) for name, size in sizes(shape).items()}
        alone = shape.name.partition(" ")[0]
        if shape.name.endswith("alone tuned"):
            assert [name for name, triton in routes.items() if triton] == [alone]
        else:
            but = shape.name.rpartition(" ")[2]
            assert [name for name, triton in routes.items() if not triton] == [but]


@pytest.mark.parametrize("shape", [*SHAPES, *APART], ids=lambda shape: shape.name)
def test_kernels_write_within_bounds(shape: Shape) -> None:
    """AITER's flatten writes at least one group per head; for half a group it would
    write past the end."""
    assert shape.hidden % GROUP == shape.q_lora % GROUP == shape.kv_lora % GROUP == 0
    if shape.serves(Chain.CORE):
        assert shape.v % GROUP == 0


def test_pairs_and_triples_are_gathered_over_both_transports() -> None:
    """At M = 4 the small shape has as many rows per rank as groups."""
    gathered = {
        (case.chain.nsa, case.chain.over_c10d, case.m)
        for case in reduced_matrix()
        if case.chain.gathers
        and case == Case(case.chain, case.m)
        and case.shape.hidden // GROUP == 4
    }
    assert gathered >= set(product((True, False), (True, False), (3, 4)))


@pytest.mark.parametrize("base", BASES)
def test_the_code_between_is_run(pins: Pins, base: str) -> None:
    """If a class were renamed, the proof would silently skip it."""
    found = sglang_sources(pins.patched(base))
    assert {LAYER, LATENT, METHOD, *KINDS} <= set(found.places)
