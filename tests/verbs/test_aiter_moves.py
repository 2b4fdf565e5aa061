"""AITER as a target: its module moved, and later adopted the parameter differently.

The trees are the pinned package's own file, moved, and edited here in ways that the
releases after the pin are known for.
"""

from __future__ import annotations

import pytest

from conftest import Pins
from overlaykit.planning.landing import plan_drifted
from overlaykit.planning.plan import State
from overlaykit.trees.tree import EditedTree
from support.layouts import layouts_of
from xscale.kernels import KernelRow, take_kernels
from xscale.sites import FLATTEN, RMS

OLD = "aiter/ops/triton/fused_fp8_quant.py"
NEW = "aiter/ops/triton/quant/fused_fp8_quant.py"

SIGNATURE = "    group_size,\n    dtype_quant=fp8_dtype,\n):\n"
BUFFER = """\
    out_block_scales = torch.empty(
        (M, triton.cdiv(N, group_size)), dtype=torch.float32, device=x.device
    )
"""
STRIDES = "        *out_block_scales.stride(),\n"
RETURNED = "    return out, out_block_scales\n"
VIEW = "        out1_bs = out1_bs.view(M, num_bs_cols)\n"

Edit = tuple[str, str]
PARAMETER: Edit = (SIGNATURE, SIGNATURE.replace(")", "    transpose_scale=False,\n)"))
ALLOCATED: Edit = (
    BUFFER,
    """\
    groups = triton.cdiv(N, group_size)
    more = {"dtype": torch.float32, "device": x.device}
    if not transpose_scale:
        out_block_scales = torch.empty((M, groups), **more)
    else:
        out_block_scales = torch.empty((groups, M), **more).transpose(0, 1)
""",
)


def moved(pins: Pins, *edits: Edit, to: str = NEW) -> EditedTree:
    """The pinned package with the module elsewhere, and edited."""
    pinned = pins.tree("aiter")
    source = (pinned.read(OLD) or b"").decode()
    for old, new in edits:
        assert source.count(old) == 1, old
        source = source.replace(old, new)
    return EditedTree(pinned, {OLD: None, to: source.encode()})


def rows(tree: EditedTree) -> dict[str, KernelRow]:
    return {row.kernel: row for row in take_kernels(tree)}


def test_the_patch_lands_where_the_module_went(pins: Pins) -> None:
    carried, pinned = pins.overlay["aiter"], pins.tree("aiter")
    landed = plan_drifted(carried, moved(pins), pinned)
    assert [hunk.state for hunk in landed.hunks] == [State.RENAMED] * 2
    assert landed.lands
    assert landed.files == {NEW: pins.patched("aiter").read(OLD)}


def test_it_lands_with_other_changes_in_the_module(pins: Pins) -> None:
    """As from v0.1.10: kernels imported from another module, and one more parameter."""
    carried, pinned = pins.overlay["aiter"], pins.tree("aiter")
    tree = moved(
        pins,
        ("_triton_kernels.fused_fp8_quant", "_triton_kernels.quant.fused_fp8_quant"),
        (
            "    output_unquantized_inp1=False,\n    transpose_scale=False,\n",
            "    output_unquantized_inp1=False,\n    transpose_scale=False,\n"
            "    gemma_norm=False,\n",
        ),
    )
    landed = plan_drifted(carried, tree, pinned)
    assert [(h.state, h.shift) for h in landed.hunks] == [(State.RENAMED, 1)] * 2
    assert rows(EditedTree(tree, dict(landed.files)))[FLATTEN].layout == "honest"


def test_the_pin_without_and_with_the_patch(pins: Pins) -> None:
    rms, flatten = take_kernels(pins.tree("aiter"))
    assert (rms.kernel, rms.path, rms.parameter) == (RMS, OLD, True)
    assert rms.layout == "lying"
    assert (flatten.kernel, flatten.path, flatten.parameter) == (FLATTEN, OLD, False)
    assert flatten.layout == "no parameter"
    source = (pins.tree("aiter").read(OLD) or b"").split(b"\n")
    assert source[(flatten.line or 0) - 1].startswith(f"def {FLATTEN}(".encode())

    _, flatten = take_kernels(pins.patched("aiter"))
    assert (flatten.parameter, flatten.layout) == (True, "honest")


def test_adopted_in_other_words(pins: Pins) -> None:
    """The text conflicts, and the source shows that upstream has the change."""
    tree = moved(pins, PARAMETER, ALLOCATED)
    flatten = rows(tree)[FLATTEN]
    assert (flatten.path, flatten.parameter) == (NEW, True)
    assert flatten.layout == "honest"
    landed = plan_drifted(pins.overlay["aiter"], tree, pins.tree("aiter"))
    assert not landed.lands


@pytest.mark.parametrize(
    ("edits", "layout", "said"),
    [
        # The parameter exists, but nothing uses it.
        ([PARAMETER], "ignores the flag", "back row-major"),
        # Written row by row into a buffer of the other shape: unknown.
        (
            [PARAMETER, (BUFFER, BUFFER.replace("M, triton.cdiv(N, group_size)",
             "triton.cdiv(N, group_size), M"))],
            "unknown",
            "another order",
        ),
        # Copied back at the end.
        (
            [PARAMETER, ALLOCATED, (RETURNED,
             "    out_block_scales = out_block_scales.contiguous()\n" + RETURNED)],
            "ignores the flag",
            "row-major",
        ),
        # Returned in a contiguous shape that it does not have.
        (
            [PARAMETER, ALLOCATED, (RETURNED,
             "    out_block_scales = out_block_scales.t().view(M, groups)\n"
             + RETURNED)],
            "lying",
            "contiguous (M, groups) view",
        ),
        # With swapped axes.
        (
            [PARAMETER, ALLOCATED, (RETURNED,
             "    out_block_scales = out_block_scales.t()\n" + RETURNED)],
            "unknown",
            "axes exchanged",
        ),
        # Strides that are no longer the scale's.
        ([PARAMETER, ALLOCATED, (STRIDES, "        1,\n        M,\n")],
         "unknown", "does not give the kernel its strides"),
        # Made by a call that the census does not know.
        ([PARAMETER, ALLOCATED, (RETURNED,
          "    out_block_scales = shuffled(out_block_scales)\n" + RETURNED)],
         "unknown", "shuffled"),
        ([PARAMETER, ALLOCATED, (RETURNED,
          "    if M > 1:\n        out_block_scales = out_block_scales.t()\n"
          + RETURNED)],
         "unknown", "asks for M > 1"),
        # Returned early, as another view than at the end.
        ([PARAMETER, ALLOCATED, (RETURNED,
          "    if transpose_scale:\n        return out, out_block_scales.t()\n"
          + RETURNED)],
         "unknown", "axes exchanged"),
        # Chosen by an expression whose test is open.
        ([PARAMETER, ALLOCATED, (RETURNED,
          "    out_block_scales = out_block_scales.t() if M > 1 else out_block_scales\n"
          + RETURNED)],
         "unknown", "several layouts"),
        # The rows have another value when the buffer is made.
        ([PARAMETER, ALLOCATED, ("    groups =", "    M = N2\n    groups =")],
         "unknown", "torch.empty"),
        # The strides of a buffer that is replaced before the launch.
        ([PARAMETER, ALLOCATED, (STRIDES, "        rows, columns,\n"),
          ("**more).transpose(0, 1)\n", "**more).transpose(0, 1)\n"
           "    rows, columns = out_block_scales.stride()\n"
           "    out_block_scales = out_block_scales.contiguous()\n")],
         "unknown", "does not give the kernel its strides"),
        ([PARAMETER, ALLOCATED, (STRIDES, STRIDES.replace(
          "*out_block_scales.stride()",
          "out_block_scales.stride(-2), out_block_scales.stride(-1)"))],
         "honest", "strides (1, M)"),
    ],
)  # fmt: skip
def test_what_flatten_does_with_it(
    pins: Pins, edits: list[Edit], layout: str, said: str
) -> None:
    row = rows(moved(pins, *edits))[FLATTEN]
    assert (row.parameter, row.layout) == (True, layout), row.detail
    assert said in row.detail


def test_an_option_that_makes_rms_honest(pins: Pins) -> None:
    option = "    transpose_scale=False,\n    strided: bool = False,\n):\n"
    tree = moved(
        pins,
        ("    transpose_scale=False,\n):\n", option),
        (
            VIEW,
            "        if strided:\n            out1_bs = out1_bs.T\n"
            "        else:\n    " + VIEW,
        ),
    )
    rms = rows(tree)[RMS]
    assert rms.layout == "lying"
    assert "honest with strided=True" in rms.detail
    tree = moved(pins, (VIEW, "        out1_bs = out1_bs.transpose(0, 1)\n"))
    assert rows(tree)[RMS].layout == "honest"


def test_reading_agrees_with_running(pins: Pins, kernels: None) -> None:
    """Run the kernels themselves, interpreted, on trees of every layout."""
    lie = (
        "    if transpose_scale:\n"
        "        out_block_scales = out_block_scales.t().view(M, groups)\n"
    )
    shown = (VIEW, "        out1_bs = out1_bs.transpose(0, 1)\n")
    seen = set()
    trees = (
        pins.tree("aiter"),
        pins.patched("aiter"),
        moved(pins, PARAMETER, shown, to=OLD),
        moved(pins, PARAMETER, ALLOCATED, (RETURNED, lie + RETURNED), to=OLD),
    )
    for tree, layouts in zip(trees, layouts_of(*trees), strict=True):
        for ran, read in zip(layouts, take_kernels(tree), strict=True):
            assert (read.kernel, read.layout) == (
                ran.kernel,
                ran.layout.value,
            ), ran
            seen.add(read.layout)
    assert seen == {"lying", "honest", "ignores the flag", "no parameter"}


def test_gone_and_twice(pins: Pins) -> None:
    pinned = pins.tree("aiter")
    gone = take_kernels(EditedTree(pinned, {OLD: None}))
    assert [(r.path, r.line, r.layout) for r in gone] == [(None, None, "unknown")] * 2
    twice = take_kernels(EditedTree(pinned, {NEW: pinned.read(OLD)}))
    for row in twice:
        assert row.layout == "unknown"
        assert OLD in row.detail and NEW in row.detail
