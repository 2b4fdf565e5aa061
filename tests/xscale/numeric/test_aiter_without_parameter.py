"""The finding on an AITER without the parameter names a remedy for the AITER.

The AITER is the release itself, whose flatten has no such parameter; for the other
kernel it is the release without the parameter.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest

from conftest import Pins
from overlaykit.trees.tree import Tree
from xscale.numeric import Case, CaseResult, Chain, findings_of
from xscale.sites import FLATTEN, PARAMETER, RMS, without_parameter

from .mutants import MUTANTS, mutated
from .test_numeric import edited

Prove = Callable[..., tuple[CaseResult, ...]]

_KERNELS = "aiter/ops/triton/fused_fp8_quant.py"
_SIGNATURE = "    output_unquantized_inp1=False,\n    transpose_scale=False,\n):\n"
_BODY = "    if transpose_scale:\n        # Create with transposed shape for direct"


def _without_either(aiter: Tree) -> Tree:
    """The release's RMS quantization before it had the parameter."""
    return edited(
        aiter,
        _KERNELS,
        (_SIGNATURE, "    output_unquantized_inp1=False,\n):\n"),
        # The rest of the function still uses the name.
        (_BODY, f"    transpose_scale = False\n{_BODY}"),
    )


@dataclass(frozen=True)
class Lacking:
    """A kernel, the chain that runs it, and an AITER whose kernel lacks the
    parameter."""

    kernel: str
    chain: Chain
    aiter: Tree


@pytest.fixture(params=[FLATTEN, RMS])
def lacking(request: pytest.FixtureRequest, pins: Pins) -> Lacking:
    aiter = pins.tree("aiter")
    if request.param == FLATTEN:
        return Lacking(FLATTEN, Chain.CORE, aiter)
    return Lacking(RMS, Chain.MLA, _without_either(aiter))


def test_the_remedy_is_another_aiter(
    lacking: Lacking, pins: Pins, prove: Prove
) -> None:
    """The tree requests a transposed scale from any AITER."""
    (careless,) = (m for m in MUTANTS if m.name == "no probe for transpose_scale")
    tree = mutated(pins.patched("sglang"), careless.edits)
    cases = [Case(lacking.chain, 3)]

    found = findings_of(prove(tree, cases, aiter=lacking.aiter))
    assert {one.site for one in found} == cases[0].sites
    for one in found:
        assert f"this AITER's {lacking.kernel} has no parameter {PARAMETER}" in one.what
        assert f"unexpected keyword argument '{PARAMETER}'" in (one.found or "")
        step = one.next_step or ""
        assert step.startswith(without_parameter(lacking.kernel))
        assert "as the series does" in step and "census" not in step
    # With an AITER that has the parameter the same tree is right.
    assert findings_of(prove(tree, cases)) == ()


def test_the_series_is_right_and_copies(
    lacking: Lacking, pins: Pins, prove: Prove
) -> None:
    """The series does not request what the AITER lacks, so it copies, as before."""
    tree = pins.patched("sglang")
    (outcome,) = prove(tree, [Case(lacking.chain, 3)], aiter=lacking.aiter)
    assert all(r.bytes and r.gemm and not r.can_transpose for r in outcome.readings)
    assert {one.site for one in outcome.findings} == outcome.case.sites
    for one in outcome.findings:
        assert (
            f"copy of the scale: this AITER's {lacking.kernel} has no parameter"
            in one.what
        )
        assert (one.next_step or "").startswith(without_parameter(lacking.kernel))
        assert ("scripts/apply.py" in (one.next_step or "")) is (
            lacking.kernel == FLATTEN
        )
        assert "census" not in (one.next_step or "")
