"""The series that opens upstream's guard: every producer live and right, and each fault
behind the guard found again by its name if its patch is left out."""

from __future__ import annotations

import pytest

from conftest import Pins
from overlaykit.trees.tree import EditedTree, Tree
from support.bases import REVIVED
from xscale.liveness import probe
from xscale.numeric import Case, CaseResult, Chain, findings_of, run, summarize
from xscale.numeric.cases import BPRESHUFFLE, TRITON
from xscale.numeric.client import Job, worker
from xscale.numeric.formats import MXFP8, NATIVE_BLOCK_FP8, PER_CHANNEL_FP8, Format
from xscale.numeric.lives import Life
from xscale.numeric.situations import BEHIND_MODULES, Behind, BehindCase, behind_cases
from xscale.numeric.sources import aiter_sources, sglang_sources

from .test_numeric import METHODS, PRODUCERS, SITES, SRT

BASE = "sglang-0.5.23"


_REBASED = (
    BASE,
    *(
        pytest.param(base, marks=pytest.mark.slow("the whole series, base by base"))
        for base in REVIVED
        if base != BASE
    ),
)
_WITH_SMALL_M = "sglang-0.5.23"
"""The release that brought a small-M GEMM with the quantization in it."""

_UTILS = f"{SRT}/models/deepseek_common/utils.py"
_MLA = f"{METHODS}/forward_mla_rocm.py"
_MHA = f"{METHODS}/forward_mha_rocm.py"
_V2 = f"{SRT}/models/deepseek_v2.py"
_FP8 = f"{SRT}/layers/quantization/fp8.py"
_LORA = b" and not is_kv_b_lora_active(attn)"
_GUARDS = (
    b"_bmm_buf.flatten(1, 2)\n        )",
    b"_is_block_scale_fp8(attn.o_proj)",
)
_MARKED = b"""            for proj in (qkv_a, q_b, self.kv_b_proj, self.o_proj):
                if proj is not None:
                    proj.keep_bf16_input = True
"""
_OPENED = b"""    if getattr(proj, "takes_block_fp8_input", False):
        return True
"""
_UNDONE: dict[str, tuple[tuple[str, bytes, bytes], ...]] = {
    "0004": (
        (
            _MLA,
            b"_bmm_buf.flatten(1, 2)\n        )" + _LORA,
            b"_bmm_buf.flatten(1, 2)\n        )",
        ),
        (
            _MLA,
            b"_is_block_scale_fp8(attn.o_proj)" + _LORA,
            b"_is_block_scale_fp8(attn.o_proj)",
        ),
    ),
    "0007": (
        (_V2, _MARKED, b"            del qkv_a, q_b\n"),
        (_UTILS, b'if getattr(proj, "keep_bf16_input", False):', b"if False:"),
    ),
    "0008": ((_UTILS, b"if x is not None and _use_aiter", b"if False and _use_aiter"),),
}
"""Patches whose lines others build on: edits of the whole series that undo them."""


def without(pins: Pins, patch: str, base: str = BASE) -> Tree:
    """The series without one patch."""
    if patch in _UNDONE and (base == BASE or patch == "0007"):
        return changed(pins.patched(base), *_UNDONE[patch])
    return pins.patched(base, without=[patch])


def changed(tree: Tree, *edits: tuple[str, bytes, bytes]) -> Tree:
    for path, old, new in edits:
        text = tree.read(path) or b""
        assert text.count(old) == 1, (path, old)
        tree = EditedTree(tree, {path: text.replace(old, new)})
    return tree


def opened(pins: Pins) -> Tree:
    """The release with its guard opened as by the last patch, and nothing mended."""
    tree, last = pins.tree(BASE), pins.overlay[BASE].series.patches[-1]
    files: dict[str, bytes | None] = {}
    for diff in last.files:
        if diff.path != _UTILS:
            data = tree.read(diff.path) or b""
            for hunk in diff.hunks:
                old, new = b"".join(hunk.old), b"".join(hunk.new)
                assert data.count(old) == 1
                data = data.replace(old, new)
            files[diff.path] = data
    line = b'    weight_scale = getattr(proj, "weight_scale", None)\n'
    return changed(EditedTree(tree, files), (_UTILS, line, _OPENED + line))


def proved(pins: Pins, tree: Tree, cases: tuple[Case, ...]) -> tuple[CaseResult, ...]:
    return run(tree, pins.patched("aiter"), cases, pristine=pins.tree(BASE))


def _situation(result: CaseResult) -> Behind:
    assert isinstance(result.case, BehindCase)
    return result.case.situation


def situations(pins: Pins, *trees: Tree) -> list[dict[Behind, str]]:
    """The faults of each tree, by situation."""
    kernels, found = aiter_sources(pins.patched("aiter")), []
    for tree in trees:
        sources = sglang_sources(tree, BEHIND_MODULES)
        job = Job(sources, kernels, None, behind_cases())
        results = worker().do(job, lambda *_: None)
        seen = {_situation(r): r.raised for r in results}
        assert seen.keys() == set(Behind)
        found.append({which: text for which, text in seen.items() if text})
    return found


@pytest.mark.parametrize("base", _REBASED)
def test_the_series_holds(pins: Pins, kernels: None, base: str) -> None:
    cases = BPRESHUFFLE + TRITON
    tree, aiter = pins.patched(base), pins.patched("aiter")
    outcomes = run(tree, aiter, cases, pristine=pins.tree(base))
    assert [f.lines() for f in findings_of(outcomes)] == []
    assert {row.site for row in summarize(outcomes)} == SITES
    asked = [o for o in outcomes if o.asked and not o.case.chain.gathers]
    assert {o.relayouts for o in asked} == {0}
    states = probe(tree, aiter)
    assert {name: one.state for name, one in states.items()} == dict.fromkeys(
        PRODUCERS, Life.LIVE
    )


@pytest.mark.parametrize(
    ("patched", "form", "live"),
    [
        (False, NATIVE_BLOCK_FP8, False),
        (True, NATIVE_BLOCK_FP8, True),
        (True, MXFP8, False),
        (True, PER_CHANNEL_FP8, False),
    ],
)
def test_native_block_fp8_and_nothing_else_is_live(
    pins: Pins, kernels: None, patched: bool, form: Format, live: bool
) -> None:
    tree = pins.patched(BASE) if patched else pins.tree(BASE)
    states = probe(tree, pins.patched("aiter"), form)
    assert states.keys() == PRODUCERS
    assert {one.state for one in states.values()} == {Life.LIVE if live else Life.DEAD}


def test_the_switch_shuts_the_guard(pins: Pins, kernels: None) -> None:
    """0 is the release's own behaviour; anything but 0 and 1 is refused."""
    read = b'os.environ.get("SGLANG_AITER_PRETRANSPOSED_SCALE", "1")'
    tree = pins.patched(BASE)
    for value, state in ((b'"0"', Life.DEAD), (b'"1"', Life.LIVE)):
        switched = changed(tree, (_FP8, read, value))
        states = probe(switched, pins.patched("aiter"))
        assert {one.state for one in states.values()} == {state}, value
    check = changed(tree, (_FP8, read, b'"check"'))
    [outcome] = proved(pins, check, (Case(Chain.CORE, 3),))
    assert outcome.raised is not None
    assert "SGLANG_AITER_PRETRANSPOSED_SCALE='check': expected 0 or 1" in outcome.raised


@pytest.mark.parametrize(
    ("patch", "cases", "sites", "says"),
    [
        ("0001", TRITON, {"gather"}, "reads a wrong scale"),
        ("0002", BPRESHUFFLE, {"gather"}, "Tensors must be contiguous"),
        ("0002", BPRESHUFFLE, {"gather"}, "reads a wrong scale"),
        ("0005", BPRESHUFFLE, {"S1", "S2"}, "is never given a fused scale"),
        ("0009", BPRESHUFFLE, PRODUCERS, "is never given a fused scale"),
    ],
)
def test_without_one_patch_its_fault_is_named(
    pins: Pins,
    kernels: None,
    patch: str,
    cases: tuple[Case, ...],
    sites: set[str],
    says: str,
) -> None:
    outcomes = proved(pins, without(pins, patch), cases)
    named = {
        finding.site
        for finding in findings_of(outcomes)
        if says in finding.what or says in (finding.found or "")
    }
    assert sites <= named


@pytest.mark.slow("a base whose fused norms write row-major scales")
def test_row_major_norms_are_named(pins: Pins, kernels: None) -> None:
    """The patch that 0.5.19 alone needs: without it, seven sites copy their scale."""
    base = "sglang-0.5.19"
    tree = without(pins, "0008", base)
    pristine = pins.tree(base)
    outcomes = run(tree, pins.patched("aiter"), BPRESHUFFLE, pristine=pristine)
    copied = {f.site for f in findings_of(outcomes) if "reads a copy" in f.what}
    assert copied == {*(PRODUCERS - {"S8"}), "indexer"}


_FAULTS = {
    "0003": (Behind.PREFIX, "must match"),
    "0004": (Behind.LORA, "'tuple' object has no attribute 'view'"),
    "0005": (Behind.BF16_WK, "must be Tensor, not tuple"),
    "0006": (Behind.FUSED_ROPE, "q is kept in torch.float8_e4m3fn, without a scale"),
    "0007": (Behind.SUBCLASS, "treats a subclass as it treats itself"),
    "0008": (Behind.SMALL_M, "does not reach the small-M GEMM"),
}


@pytest.mark.parametrize("base", _REBASED)
def test_what_the_chains_do_not_reach(pins: Pins, kernels: None, base: str) -> None:
    """Each situation holds on the series, and fails where its patch is left out."""
    absent = set() if base == _WITH_SMALL_M else {Behind.SMALL_M}
    wanted = {p: one for p, one in _FAULTS.items() if one[0] not in absent}
    trees = [without(pins, patch, base) for patch in wanted]
    whole, *parts = situations(pins, pins.patched(base), *trees)
    assert whole.keys() == absent
    assert all(text.startswith("NotDriven: the tree has no") for text in whole.values())
    for (patch, (situation, says)), faults in zip(wanted.items(), parts, strict=True):
        assert faults.keys() == {situation, *absent}, patch
        assert says in faults[situation], patch


_GUARD = "if _use_aiter_gfx95 and _is_block_scale_fp8({}"
_Q_B, _KV_B = "self.q_b_proj", "self.kv_b_proj"
_ASKED = {
    "q_b, absorbed": (_MLA, f"el{_GUARD}, q)", _Q_B, _KV_B),
    "q_b, sparse prefill": (_MHA, f"    {_GUARD}, q)", _Q_B, _KV_B),
    "q_b, prefill": (_MHA, f"el{_GUARD}, q)", _Q_B, _KV_B),
    "kv_b is written": (_MHA, f"\n        {_GUARD})", _KV_B, _Q_B),
    "kv_b is read": (_MHA, f"\n            {_GUARD})", _KV_B, _Q_B),
    "o_proj": (_MLA, "{}, _bmm_buf.flatten", "attn.o_proj", "attn.kv_b_proj"),
}
"""Each question to the projection that reads a scale: its file and text, that
projection, and another one."""


@pytest.mark.slow("every question to a projection, put to another one")
def test_another_projection_is_asked(pins: Pins, kernels: None) -> None:
    """Where the two differ in their format, the reader gets what it cannot take."""

    def mutant(path: str, text: str, asked: str, other: str) -> Tree:
        old, new = (text.format(name).encode() for name in (asked, other))
        return changed(pins.patched(BASE), (path, old, new))

    trees = [mutant(*question) for question in _ASKED.values()]
    for question, faults in zip(_ASKED, situations(pins, *trees), strict=True):
        assert Behind.BF16_PROJECTION in faults, question


def test_the_guard_alone_meets_every_fault(pins: Pins, kernels: None) -> None:
    """Upstream's own guard opened, and nothing mended: what its author would meet."""
    tree = opened(pins)
    [faults] = situations(pins, tree)
    # Upstream's producers ask the right projection.
    assert faults.keys() == {*Behind} - {Behind.BF16_PROJECTION}
    outcomes = proved(pins, tree, BPRESHUFFLE + TRITON)
    found = findings_of(outcomes)
    assert any("reads a wrong scale" in f.what and f.site == "gather" for f in found)
    assert any("contiguous" in (f.found or "") for f in found)
