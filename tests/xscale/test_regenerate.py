"""Hunks regenerated from their purpose, on real upstream files."""

from __future__ import annotations

import pytest

pytest.importorskip("libcst")

from conftest import Pins
from overlaykit.series.scopes import MODULE
from overlaykit.trees.tree import EditedTree, Tree
from xscale.census import SiteRow, take_census
from xscale.regenerate import Edit, regenerate

BASES = ("sglang", "sglang-0.5.12.post1")
ADAPTER, TO_GEMM = ("quant_pretransposed_scale",), ("x_scale_for_gemm",)
BOTH = ("qkv_a_projection", *ADAPTER)


def census_of(tree: Tree) -> tuple[SiteRow, ...]:
    return take_census(tree, within="python/sglang/").rows


def regenerated(pins: Pins, base: str) -> EditedTree:
    """The release with every hunk of its series regenerated, and none merged."""
    carried, pristine = pins.overlay[base], pins.tree(base)
    changes: dict[str, bytes | None] = {f.path: f.data for f in carried.new_files}
    tree = EditedTree(pristine, changes)
    for patch in carried.lock.patches:
        for file in patch.files:
            for hunk in file.hunks:
                data = tree.read(file.path)
                assert data is not None
                names: tuple[str, ...] = ADAPTER
                if "fp8_utils" in file.path:
                    names = TO_GEMM
                if "communicator" in file.path:
                    names = BOTH
                imports = names if hunk.scope == MODULE else ()
                edit = Edit(hunk.sites, hunk.scope, imports)
                found = census_of(tree) if hunk.sites else ()
                rows = [row for row in found if row.path == file.path]
                made = regenerate(edit, data, rows, module_scope=hunk.scope == MODULE)
                assert made is not None, (file.path, hunk)
                changes[file.path] = made
    return tree


@pytest.mark.parametrize("base", BASES)
def test_the_regenerated_series_is_the_series(base: str, pins: Pins) -> None:
    """Byte for byte the patched files, so census and numbers are the same as well."""
    made, patched = regenerated(pins, base), pins.patched(base)
    for path in pins.overlay[base].series.paths:
        assert made.read(path) == patched.read(path), path


def test_a_call_that_sets_transpose_scale_is_left_alone(pins: Pins) -> None:
    [path] = [p for p in pins.overlay["sglang"].series.paths if "forward_mha" in p]
    pristine = pins.tree("sglang")
    data = (pristine.read(path) or b"").replace(
        b"res1=None,\n                    output_unq",
        b"res1=None,\n                    transpose_scale=False,\n"
        b"                    output_unq",
    )
    tree = EditedTree(pristine, {path: data})
    rows = [row for row in census_of(tree) if row.path == path]
    scope = "DeepseekMHAForwardMixin.forward_normal_prepare"
    made = [
        regenerate(Edit((site,), scope, ()), data, rows, module_scope=False)
        for site in ("S5", "S6", "S7")
    ]
    assert None in made and any(made)


def test_a_file_that_does_not_parse() -> None:
    for edit in (Edit((), "f", ()), Edit((), MODULE, ADAPTER)):
        assert regenerate(edit, b"def f(:\n", (), edit.scope == MODULE) is None


def test_a_site_that_is_not_there(pins: Pins) -> None:
    path = pins.overlay["sglang"].series.paths[0]
    tree = pins.tree("sglang")
    rows = [row for row in census_of(tree) if row.path == path]
    edit = Edit(("S1",), "aiter_w8a8_block_fp8_linear", ())
    assert regenerate(edit, tree.read(path) or b"", rows, module_scope=False) is None
