"""The judge on the patched pin, on the pristine one, and on broken trees."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import combinations, product

import pytest

from conftest import Pins
from overlaykit.trees.tree import EditedTree, Tree
from xscale.numeric import (
    Case,
    CaseResult,
    Chain,
    Variant,
    findings_of,
    reduced_matrix,
    summarize,
)
from xscale.numeric.cases import BPRESHUFFLE, TRITON, pairwise

Prove = Callable[..., tuple[CaseResult, ...]]

SRT = "python/sglang/srt"
FP8_UTILS = f"{SRT}/layers/quantization/fp8_utils.py"
SCALE = f"{SRT}/layers/quantization/bpreshuffle_scale.py"
COMMUNICATOR = f"{SRT}/layers/communicator.py"
METHODS = f"{SRT}/models/deepseek_common/attention_forward_methods"
MLA, MHA = f"{METHODS}/forward_mla.py", f"{METHODS}/forward_mha.py"

PRODUCERS = frozenset(f"S{number}" for number in range(1, 9))
SITES = PRODUCERS | {"gather", "indexer"}


@pytest.fixture(scope="module")
def reduced(pins: Pins, prove: Prove) -> tuple[CaseResult, ...]:
    return prove(pins.patched("sglang"), reduced_matrix())


def test_all_pairs_occur() -> None:
    factors = ((0, 1, 2), "abcd", (True, False))
    rows = list(pairwise(*factors))
    for i, j in combinations(range(3), 2):
        seen = {(row[i], row[j]) for row in rows}
        assert seen == set(product(factors[i], factors[j]))


def test_the_patched_pin_holds(reduced: tuple[CaseResult, ...]) -> None:
    assert [f.lines() for f in findings_of(reduced)] == []
    assert all(outcome.ok for outcome in reduced)


def test_every_site_was_read_on_every_route(reduced: tuple[CaseResult, ...]) -> None:
    read = {(row.site, row.route) for row in summarize(reduced)}
    routes = ("bpreshuffle", "Triton")
    assert read == {
        *product(PRODUCERS | {"gather"}, routes),
        ("indexer", "elementwise"),
    }
    compared = [r for o in reduced for r in o.readings]
    assert all(r.values and r.gemm for r in compared)


def test_nothing_is_copied(reduced: tuple[CaseResult, ...]) -> None:
    """By pointer and by operation, wherever a transposed scale was requested."""
    asked = [
        outcome
        for outcome in reduced
        if outcome.asked
        and not outcome.case.chain.gathers
        and not outcome.case.tests_check_mode
    ]
    assert asked
    assert {o.relayouts for o in asked} == {0}
    assert {r.copies for o in asked for r in o.readings} == {0}


def test_check_mode_is_tested(reduced: tuple[CaseResult, ...]) -> None:
    """On either GEMM; a wrong scale raises before the GEMM reads it."""
    tested = [outcome for outcome in reduced if outcome.case.tests_check_mode]
    assert {s for o in tested for s in o.case.sites} == PRODUCERS
    for gemm in ("bpreshuffle", "Triton"):
        assert any(f"read by the {gemm} GEMM" in (o.raised or "") for o in tested)
    assert all(o.raised and not o.readings for o in tested)


def test_no_switch_no_check_mode(pins: Pins, prove: Prove) -> None:
    """A release without the switch is not tested for check mode."""
    cases = [case for case in reduced_matrix() if case.tests_check_mode]
    assert cases and prove(pins.tree("sglang"), cases) == ()


def test_the_pristine_pin_copies(pins: Pins, prove: Prove) -> None:
    """The release is right: one copy for each consumer on bpreshuffle, none on
    Triton."""
    tree = pins.tree("sglang")
    cases = BPRESHUFFLE + TRITON
    outcomes = prove(tree, cases, aiter=pins.tree("aiter"))
    assert findings_of(outcomes) == ()
    for outcome in outcomes:
        routes = [reading.route.value for reading in outcome.readings]
        assert [r.copies for r in outcome.readings] == [
            int(route == "bpreshuffle") for route in routes
        ]
        # wk stands beside the head gate; the input's chains have its reading.
        beside = int(outcome.case.chain is Chain.INDEXER)
        wanted = routes.count("bpreshuffle") + beside
        assert outcome.relayouts == wanted, outcome.case


def test_the_patched_pin_on_pristine_aiter(pins: Pins, prove: Prove) -> None:
    """Only S8 copies, as before: that AITER cannot write its scale transposed."""
    cases = [Case(chain, 3, variant=Variant.INSTALLED) for chain in (Chain.CORE,)]
    cases += [Case(chain, 3) for chain in (Chain.MLA, Chain.RESIDUAL)]
    outcomes = prove(pins.patched("sglang"), cases, aiter=pins.tree("aiter"))
    copies = {r.site: r.copies for o in outcomes for r in o.readings}
    assert copies == {"S8": 1, "S4": 0, "S2": 0}
    assert all(r.bytes and r.gemm for o in outcomes for r in o.readings)


# --- broken trees -----------------------------------------------------------------


def edited(tree: Tree, path: str, *changes: tuple[str, str]) -> Tree:
    """The tree with each old text, which must occur once, replaced by the new."""
    text = (tree.read(path) or b"").decode()
    for old, new in changes:
        assert text.count(old) == 1, (text.count(old), old)
        text = text.replace(old, new)
    return EditedTree(tree, {path: text.encode()})


LYING = (
    "scale = scale.as_strided(shape, strides)",
    "scale = for_ck",
)


def test_producers_alone_with_honest_strides_are_harmless(
    pins: Pins, prove: Prove
) -> None:
    """The reason for honest strides: an unpatched consumer still reads right values."""
    tree = pins.patched("sglang", without=["consumer"])
    outcomes = prove(tree, BPRESHUFFLE + TRITON)
    assert findings_of(outcomes) == ()


def test_producers_alone_with_lying_strides(pins: Pins, prove: Prove) -> None:
    tree = edited(pins.patched("sglang", without=["consumer"]), SCALE, LYING)
    outcomes = prove(tree, BPRESHUFFLE + TRITON)
    wrong = {r.site for o in outcomes for r in o.readings if not r.bytes}
    assert wrong == SITES


def forgotten(pins: Pins, patch: str) -> Tree:
    return pins.patched("sglang", without=[patch])


@pytest.mark.parametrize(
    ("patch", "sites"),
    [
        ("communicator", {"S1", "S2"}),
        ("mha", {"S5", "S6", "S7"}),
        ("flatten", {"S8"}),
    ],
)
def test_forgotten_sites_are_right_and_counted(
    pins: Pins, prove: Prove, patch: str, sites: set[str]
) -> None:
    outcomes = prove(forgotten(pins, patch), BPRESHUFFLE)
    readings = [r for o in outcomes for r in o.readings]
    assert all(r.bytes and r.gemm for r in readings)
    assert {f.site for f in findings_of(outcomes)} == sites
    copied = {r.site for r in readings if r.copies} - {"gather"}
    assert copied == sites


def test_one_forgotten_site(pins: Pins, prove: Prove) -> None:
    """S3 but not its twin S4."""
    tree = edited(
        pins.patched("sglang"),
        MLA,
        (
            "q_quanted, q_lora, k_nope, _ = quant_pretransposed_scale(\n"
            "                                fused_rms_fp8_group_quant,\n"
            "                                self.q_b_proj,\n",
            "q_quanted, q_lora, k_nope, _ = fused_rms_fp8_group_quant(\n",
        ),
    )
    outcomes = prove(tree, BPRESHUFFLE)
    assert {f.site for f in findings_of(outcomes)} == {"S3"}
    (reading,) = (r for o in outcomes for r in o.readings if r.site == "S3")
    assert (reading.bytes, reading.copies) == (True, 1)


def test_marked_without_being_transposed(pins: Pins, prove: Prove) -> None:
    """The consumer trusts the mark; the check of strides does not find this."""
    tree = edited(
        pins.patched("sglang"),
        SCALE,
        ("outputs = quant(*args, transpose_scale=True, **kwargs)",
         "outputs = quant(*args, **kwargs)"),
    )  # fmt: skip
    outcomes = prove(tree, BPRESHUFFLE)
    wrong = {s for o in outcomes for s in o.wrong_sites}
    # The gather and the indexer see lying strides as well.
    assert wrong == SITES


def test_lying_and_marked_on_triton(pins: Pins, prove: Prove) -> None:
    """Right for CK if the consumer accepts it; wrong for Triton at the two sites that
    may not know the reader of their scale."""
    through = (
        "    transposed = x_scale.t()\n    if not transposed.is_contiguous():",
        "    transposed = x_scale.view(x_scale.shape[::-1])\n"
        "    if not transposed.is_contiguous():",
    )
    tree = edited(pins.patched("sglang"), SCALE, LYING, through)
    outcomes = prove(tree, BPRESHUFFLE)
    wrong = {r.site for o in outcomes for r in o.readings if not r.bytes}
    assert wrong == {"gather", "indexer"}
    outcomes = prove(tree, TRITON)
    wrong = {
        r.site
        for o in outcomes
        for r in o.readings
        if not r.bytes and r.route.value == "Triton"
    }
    assert wrong == {"S1", "S2"}


def test_gather_without_its_fix(pins: Pins, prove: Prove) -> None:
    """c10d refuses the strides; pynccl moves the bytes in the wrong order."""
    tree = edited(
        pins.patched("sglang"),
        COMMUNICATOR,
        ("local_hidden_states = local_hidden_states.contiguous()\n", "pass\n"),
    )
    c10d, pynccl = prove(
        tree, [Case(chain, 3) for chain in (Chain.GATHER_C10D, Chain.GATHER_PYNCCL)]
    )
    assert c10d.wrong_sites == pynccl.wrong_sites == {"gather"}
    assert c10d.raised is not None and "must be contiguous" in c10d.raised
    assert COMMUNICATOR in c10d.raised
    assert pynccl.raised is None
    assert not any(r.bytes for r in pynccl.readings)


def test_one_token_shows_nothing(pins: Pins, prove: Prove) -> None:
    """Cases of M = 1 prove nothing: even this tree passes them."""
    tree = edited(pins.patched("sglang", without=["consumer"]), SCALE, LYING)
    case = partial(Case, Chain.MLA)
    one, two = prove(tree, [case(1), case(2)])
    assert one.ok and not two.ok
