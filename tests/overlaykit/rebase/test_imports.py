"""Imports that a rebased series adds and the new base cannot serve."""

from __future__ import annotations

import pytest

from conftest import Pins
from overlaykit.rebase.imports import missing_imports
from overlaykit.trees.tree import EditedTree
from support.bases import BASES

BASE = "sglang-0.5.23"
ROOT = "python/sglang"
UTILS = f"{ROOT}/srt/models/deepseek_common/utils.py"
GEMM = f"{ROOT}/kernels/ops/gemm/smallm_fp8_blockscale_gfx950/__init__.py"


@pytest.mark.parametrize("base", BASES)
def test_every_base_has_what_its_series_imports(pins: Pins, base: str) -> None:
    carried = pins.overlay[base]
    before, after = pins.tree(base), pins.patched(base)
    assert missing_imports(carried.target, before, after, carried.series) == ()


def test_a_module_that_is_not_there(pins: Pins) -> None:
    carried = pins.overlay[BASE]
    after = EditedTree(pins.patched(BASE), {GEMM: None})
    [one] = missing_imports(carried.target, pins.tree(BASE), after, carried.series)
    name = "sglang.kernels.ops.gemm.smallm_fp8_blockscale_gfx950"
    assert one.what == f"{name} is imported, and the new base does not have it"
    assert (one.path, one.patch) == (UTILS, "0008-small-m-gemm.patch")
    assert (
        (after.read(UTILS) or b"")
        .split(b"\n")[(one.line or 0) - 1]
        .endswith(b"import smallm_fp8_blockscale_gfx950 as smallm")
    )


@pytest.mark.parametrize(
    ("line", "missing"),
    [
        ("from sglang.srt.environ import envs", False),
        ("from sglang.srt.environ import no_such_name", True),
        ("from sglang.srt.no_such_module import envs", True),
        ("import sglang.srt.no_such_module", True),
        ("import sglang.srt.environ", False),
        ("from sglang.srt import environ", False),
        ("from . import no_such_name", False),
        ("import no_such_package", False),
        ("import sglang", False),
    ],
)
def test_modules_and_names(pins: Pins, line: str, missing: bool) -> None:
    """A name counts as there if its module has the word."""
    carried, before = pins.overlay[BASE], pins.tree(BASE)
    text = f"{line}\n".encode() + (before.read(UTILS) or b"")
    after = EditedTree(before, {UTILS: text})
    found = missing_imports(carried.target, before, after, carried.series)
    assert [one.line for one in found] == ([1] if missing else [])
