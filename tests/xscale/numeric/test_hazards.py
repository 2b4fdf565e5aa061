"""Hazards 1 to 12: each is harmless on the patched pin and visible on a tree that has
it.

A test that only passes proves little, so each one first builds a tree with the hazard
and checks the damage.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable, Collection, Iterable
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from conftest import Pins
from overlaykit.trees.tree import Tree
from xscale.census import check_adopted, take_census
from xscale.numeric import (
    Case,
    CaseResult,
    Chain,
    Platform,
    Switch,
    Variant,
    reduced_matrix,
    run,
)
from xscale.numeric.cases import BPRESHUFFLE, TUNED_INPUT

from .mutants import (
    CALLS,
    LIES,
    MUTANTS,
    TRUSTS,
    Edit,
    Mutant,
    mutated,
    small_tree,
)
from .test_numeric import FP8_UTILS, MLA, SCALE

Prove = Callable[..., tuple[CaseResult, ...]]

_IGNORES = Edit(
    "aiter/ops/triton/fused_fp8_quant.py",
    "if transpose_scale:\n        # The",
    "if False:\n        # The",
)
_HANDED = "x_scale_for_gemm(input_scale, bpreshuffle"
_GROUPED = '        and kwargs.get("group_size") == _GROUP_SIZE\n'
_TYPED = '        and kwargs.get("dtype_quant") == torch.float8_e4m3fn\n'


def mutant(name: str) -> Mutant:
    (found,) = (one for one in MUTANTS if one.name == name)
    return found


def wrong(outcomes: Iterable[CaseResult]) -> set[str]:
    """The sites whose scale is read wrongly, or not at all."""
    outcomes = tuple(outcomes)
    return {r.site for o in outcomes for r in o.readings if not r.bytes} | {
        site for o in outcomes if o.raised for site in o.case.sites
    }


def suffers(pins: Pins, prove: Prove, one: Mutant) -> set[str]:
    """The sites found on the broken tree; the patched one is clean on the same
    cases."""
    tree = pins.patched("sglang")
    assert all(outcome.ok for outcome in prove(tree, one.cases))
    outcomes = prove(mutated(tree, one.edits), one.cases)
    return {site for outcome in outcomes for site in outcome.wrong_sites}


def test_hazard_01_two_layouts(pins: Pins, prove: Prove) -> None:
    """An inverse that is right for a lying scale raises on an honest one."""
    one = mutant("the pull request's inverse")
    patched = pins.patched("sglang")
    lying = [Case(c.chain, 3, c.shape, Variant.LYING_FLATTEN) for c in one.cases]
    assert wrong(prove(mutated(patched, one.edits), lying)) == set()
    assert wrong(prove(mutated(patched, one.edits), one.cases)) == one.sites
    assert all(outcome.ok for outcome in prove(patched, [*lying, *one.cases]))


@pytest.mark.parametrize(
    "expression",
    [
        "input_scale[:]",
        "input_scale.clone()",
        "input_scale.detach()",
        "input_scale.transpose(0, 1).transpose(0, 1)",
        "torch.cat([input_scale])",
        "input_scale.split(1 << 20)[0]",
        "torch.nn.Parameter(input_scale, requires_grad=False)",
    ],
)
def test_hazard_02_marker_lost(pins: Pins, prove: Prove, expression: str) -> None:
    """With lying strides the values are wrong; with honest ones they stay right."""
    loses = Edit(FP8_UTILS, _HANDED, _HANDED.replace("input_scale", expression))
    cases = (Case(Chain.MLA, 3), Case(Chain.CORE, 3))
    tree = mutated(pins.patched("sglang"), [loses])
    assert wrong(prove(mutated(tree, [LIES]), cases)) == {"S4", "S8"}
    assert wrong(prove(tree, cases)) == set()


def test_hazard_02_stale_marker(pins: Pins, prove: Prove) -> None:
    """Row-major values written in place, into a scale that stays marked."""
    true = (
        "(input_scale.view(input_scale.shape[::-1]).t() "
        "if input_scale.is_contiguous() else input_scale).clone()"
    )
    line = f"x_scale = {_HANDED}"
    stale = Edit(FP8_UTILS, line, f"input_scale.copy_({true})\n        {line}")
    cases = (Case(Chain.MLA, 3), Case(Chain.CORE, 3))
    tree = mutated(pins.patched("sglang"), [stale])
    assert wrong(prove(mutated(tree, [LIES, TRUSTS]), cases)) == {"S4", "S8"}
    assert wrong(prove(tree, cases)) == set()


def test_hazard_03_gather(pins: Pins, prove: Prove) -> None:
    assert suffers(pins, prove, mutant("gather not made row-major")) == {"gather"}


def test_hazard_04_indexer(pins: Pins, prove: Prove) -> None:
    """It multiplies element by element and does not check the mark."""
    tree, cases = pins.patched("sglang"), [Case(Chain.INDEXER, 3)]
    assert wrong(prove(mutated(tree, [LIES, TRUSTS]), cases)) == {"indexer"}
    assert all(outcome.ok for outcome in prove(tree, cases))


@pytest.mark.parametrize("name", ["in-place fix-up", "consumer clears the mark"])
def test_hazard_05_two_consumers(pins: Pins, prove: Prove, name: str) -> None:
    """The first consumer leaves the scale unchanged, for any two GEMMs."""
    one = mutant(name)
    assert suffers(pins, prove, one) == one.sites
    both = [
        Case(Chain.RESIDUAL, 3, shape) for shape in (TUNED_INPUT, one.cases[0].shape)
    ]
    assert all(outcome.ok for outcome in prove(pins.patched("sglang"), both))


@pytest.mark.parametrize("platform", [Platform.GFX95_OLD, Platform.GFX942])
def test_hazard_06_platforms(pins: Pins, prove: Prove, platform: Platform) -> None:
    """No transposed scale is requested where only Triton's GEMM is used."""
    tree = pins.patched("sglang")
    cases = [
        Case(chain, 3, platform=platform)
        for chain in (Chain.RESIDUAL, Chain.MLA, Chain.MHA, Chain.CORE)
    ]
    outcomes = prove(tree, cases)
    assert all(outcome.ok and not outcome.asked for outcome in outcomes)
    broken = mutated(tree, mutant("predicate missing").edits)
    if platform is Platform.GFX95_OLD:
        assert all(outcome.asked for outcome in prove(broken, cases))
    else:
        # These producers are imported on gfx95 only.
        assert not any(outcome.asked for outcome in prove(broken, cases))


def adapter(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The tree's scale module, with a consumer that reads transposed scales."""
    name = "sglang.srt.layers.quantization"
    parts = name.split(".")
    for end in range(1, len(parts) + 1):
        package = ".".join(parts[:end])
        monkeypatch.setitem(sys.modules, package, ModuleType(package))
    utils = SimpleNamespace(_use_aiter_bpreshuffle_gfx95=True)
    monkeypatch.setattr(sys.modules[name], "fp8_utils", utils, raising=False)
    module = ModuleType("scale_module")
    exec(compile(tree.read(SCALE) or b"", SCALE, "exec"), vars(module))
    return module


def test_hazard_07_other_formats(
    pins: Pins, kernels: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only FP8 (e4m3fn) in groups of 128 is requested transposed and marked."""
    import torch

    def quant(x: Any, transpose_scale: bool = False, **_: Any) -> Any:
        return x, torch.ones(3, 4).t().reshape(3, 4)

    def marks(tree: Tree, **how: Any) -> bool:
        module = adapter(tree, monkeypatch)
        x = torch.ones(3, 512)
        _, scale = module.quant_pretransposed_scale(quant, None, x, **how)
        return hasattr(scale, "_aiter_bpreshuffle_layout")

    tree, fp8 = pins.patched("sglang"), torch.float8_e4m3fn
    assert marks(tree, group_size=128, dtype_quant=fp8)
    for lacks, how in [
        (_GROUPED, {"group_size": 64, "dtype_quant": fp8}),
        (_GROUPED, {"dtype_quant": fp8}),
        (_TYPED, {"group_size": 128, "dtype_quant": torch.float8_e4m3fnuz}),
        (_TYPED, {"group_size": 128, "dtype_quant": torch.uint8}),
        (_TYPED, {"group_size": 128}),
    ]:
        assert not marks(tree, **how)
        assert marks(mutated(tree, [Edit(SCALE, lacks, "")]), **how)


def test_hazard_08_no_tokens(pins: Pins, prove: Prove) -> None:
    """M = 0 gets no worse: it reaches the GEMM, as in the release."""
    cases = [case for case in reduced_matrix() if case.m == 0]
    assert all(o.raised is None for o in prove(pins.tree("sglang"), cases))
    assert all(outcome.ok for outcome in prove(pins.patched("sglang"), cases))
    one = mutant("empty scale refused")
    assert suffers(pins, prove, one) == one.sites


def test_hazard_08_what_failed_before_may_fail(pins: Pins, prove: Prove) -> None:
    """CK's GEMM fails at M = 0 but no CPU runs it: here the consumer raises instead."""
    starts = "    n, k = weight.shape\n\n    if _use_aiter_bpreshuffle_gfx95:"
    fails = 'if not len(input):\n        raise RuntimeError("no tokens")\n\n    '
    raises = Edit(FP8_UTILS, starts, starts.replace("if _use", f"{fails}if _use"))
    tree, cases = mutated(pins.patched("sglang"), [raises]), [Case(Chain.MLA, 0)]
    (worse,) = prove(tree, cases)
    assert worse.wrong_sites == {"S4"}
    pristine = mutated(pins.tree("sglang"), [raises])
    (same,) = run(tree, pins.patched("aiter"), cases, pristine=pristine)
    assert same.ok and same.raised and "no tokens" in same.raised


def fused_under_capture(tree: Tree) -> list[bool]:
    """For each fused quantization of q in forward_mla: whether a capture with an
    alternate stream reaches it."""
    parsed = ast.parse(tree.read(MLA) or b"")
    found: list[bool] = []

    def walk(node: ast.AST, captured: bool) -> None:
        if isinstance(node, ast.If) and "get_is_capture_mode" in ast.dump(node.test):
            for one in node.body:
                walk(one, captured)
            for one in node.orelse:
                walk(one, False)
            return
        if isinstance(node, ast.Name) and node.id == "fused_rms_fp8_group_quant":
            found.append(captured)
        for child in ast.iter_child_nodes(node):
            walk(child, captured)

    (function,) = (
        node
        for node in ast.walk(parsed)
        if isinstance(node, ast.FunctionDef) and node.name == "forward_absorb_prepare"
    )
    walk(function, True)
    return found


def test_hazard_09_alternate_stream(pins: Pins) -> None:
    """A capture with an alternate stream does not reach S3 and S4: nothing is saved.

    If a tree reaches them, the claim and this test must change.
    """
    tree = pins.patched("sglang")
    assert fused_under_capture(tree) == [False, False]
    reached = Edit(
        MLA,
        "q = self.q_a_layernorm(q)\n                with torch.cuda.stream",
        "q = fused_rms_fp8_group_quant(q)\n                with torch.cuda.stream",
    )
    assert fused_under_capture(mutated(tree, [reached])) == [True, False, False]


def test_hazard_10_mixed_adoption(pins: Pins, prove: Prove) -> None:
    """The state of 0.5.13: seven producers transposed, flatten not, and a trusting
    consumer."""
    trusting = Edit(
        FP8_UTILS,
        "x_scale = x_scale_for_gemm(input_scale, bpreshuffle=not use_triton)",
        "x_scale = input_scale",
    )
    tree = mutated(
        pins.patched("sglang"),
        [CALLS["S8"].forgotten, trusting],
    )
    found = {f.site: f.what for f in check_adopted(take_census(small_tree(tree)))}
    assert "dangerous mix" in found["S8"] and "dangerous mix" in found["C"]
    assert "S8 are row-major" in found["C"]
    assert wrong(prove(tree, BPRESHUFFLE)) >= {"S8"}
    assert check_adopted(take_census(small_tree(pins.patched("sglang")))) == ()


def test_hazard_11_wrapper_that_ignores_the_flag(pins: Pins, prove: Prove) -> None:
    """A row-major scale from an AITER that should return a transposed one.

    The values are wrong in both modes; check mode raises before they are used.
    """
    tree, aiter = pins.patched("sglang"), pins.patched("aiter")
    ignoring = mutated(aiter, [_IGNORES])
    on, check = (Case(Chain.CORE, 3, switch=s) for s in (Switch.ON, Switch.CHECK))
    assert all(outcome.ok for outcome in prove(tree, [on, check]))
    silent, checked = prove(tree, [on, check], ignoring)
    assert silent.raised is None and wrong([silent]) == {"S8"}
    assert checked.raised
    assert "pre-transposed activation scale is wrong" in checked.raised


def live(outcomes: Iterable[CaseResult]) -> Collection[str]:
    """The sites whose GEMM received a scale from AITER's fused quantizations."""
    return {
        r.site
        for o in outcomes
        for r in o.readings
        if r.producer.startswith("fused_") and r.site.startswith("S")
    }


def test_hazard_12_liveness(pins: Pins, prove: Prove) -> None:
    """A guard that is never true leaves a site adopted and dead (SGLang 39410)."""
    everything = {f"S{number}" for number in range(1, 9)}
    assert live(prove(pins.tree("sglang"), BPRESHUFFLE)) == everything
    one = mutant("dead guard")
    tree = mutated(pins.patched("sglang"), one.edits)
    outcomes = prove(tree, BPRESHUFFLE)
    assert live(outcomes) == everything - {"S8"}
    findings = [f for o in outcomes for f in o.findings]
    assert {f.site for f in findings} == {"S8"}
    assert any("the site is dead" in (f.found or "") for f in findings)
