"""The scale module's own promises: kept by the series, and not tested on other
trees."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from conftest import Pins
from overlaykit.trees.tree import EditedTree
from support.bases import MARKED
from xscale.numeric import (
    Case,
    CaseResult,
    chains_of,
    findings_of,
    module_cases,
    summarize,
)
from xscale.numeric.selftest import MODULE, Promise

from .module_mutants import MODULE_MUTANTS
from .test_numeric import SCALE, edited

pytestmark = pytest.mark.slow(
    "every promise of the module, compiled and captured, per base"
)

Prove = Callable[..., tuple[CaseResult, ...]]


@pytest.mark.parametrize("base", MARKED)
def test_every_base_keeps_them(pins: Pins, prove: Prove, base: str) -> None:
    outcomes = prove(pins.patched(base), module_cases())
    assert [f.lines() for f in findings_of(outcomes)] == []
    assert len(outcomes) == len(module_cases())


def test_every_promise_is_broken_by_a_mutant() -> None:
    """Each promise has a mutant: a test that never fails shows nothing."""
    broken = {
        case.promise
        for mutant in MODULE_MUTANTS
        for case in mutant.cases
        if case in module_cases()
    }
    assert broken == set(Promise)


def test_a_tree_without_the_switch_is_not_tested(pins: Pins, prove: Prove) -> None:
    assert prove(pins.tree("sglang"), module_cases()) == ()


def test_it_is_not_in_the_summary_of_sites(pins: Pins, prove: Prove) -> None:
    cases = _of(Promise.GATE)[:1]
    outcomes = prove(pins.patched("sglang"), cases)
    assert len(outcomes) == 1
    assert summarize(outcomes) == () and chains_of(outcomes) == ()


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("def x_scale_for_gemm(", "def x_scale_for_any_gemm(", "x_scale_for_gemm"),
        ("def quant_pretransposed_scale(", "def quant_(", "quant_pretransposed_scale"),
        ("import inspect\n", "import inspect\nimport no_such\n", None),
        ("\n_MODE = _mode", "\nraise RuntimeError('broken')\n_MODE = _mode", "broken"),
    ],
)
def test_an_incomplete_module(
    pins: Pins, prove: Prove, old: str, new: str, said: str | None
) -> None:
    """A finding, not a traceback; a missing module becomes a stub, as usual."""
    tree = edited(pins.patched("sglang"), SCALE, (old, new))
    found = findings_of(prove(tree, _of(Promise.GATE)[:1], compare=False))
    if said is None:
        assert found == ()
        return
    (finding,) = found
    assert finding.site == MODULE
    assert said in (finding.found or "")


def test_two_modules_with_the_switch(pins: Pins, prove: Prove) -> None:
    """Two modules are ambiguous, so this is a finding."""
    patched = pins.patched("sglang")
    fp8_utils = "python/sglang/srt/layers/quantization/fp8_utils.py"
    text = patched.read(fp8_utils) or b""
    copy = b"import sglang.srt.layers.quantization._other  # noqa\n"
    other = "python/sglang/srt/layers/quantization/_other.py"
    changes: dict[str, bytes | None] = {
        fp8_utils: text + copy,
        other: patched.read(SCALE),
    }
    tree = EditedTree(patched, changes)
    (finding,) = findings_of(prove(tree, _of(Promise.GATE)[:1], compare=False))
    assert "2 modules" in (finding.found or "")


def _of(promise: Promise) -> tuple[Case, ...]:
    return tuple(case for case in module_cases() if case.promise is promise)
