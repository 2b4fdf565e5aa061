"""The census on upstream's other releases: moved sites, states and liveness."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache

import pytest

from conftest import ROOT, Pins
from overlaykit.core.errors import EnvironmentFailure
from overlaykit.series.carried import load_overlay
from overlaykit.sources.releases import release_tree
from overlaykit.trees.tree import EditedTree
from xscale.census import Census, SiteRow, check_adopted, take_census
from xscale.sites import CATALOGUE, FLATTEN, UNKNOWN_SITE, SiteState

from .test_census import edited

SRT = "python/sglang/srt"
METHODS = f"{SRT}/models/deepseek_common/attention_forward_methods"
MLA = f"{METHODS}/forward_mla.py"
FP8_UTILS = f"{SRT}/layers/quantization/fp8_utils.py"
MLA_ROCM, MHA_ROCM = f"{METHODS}/forward_mla_rocm.py", f"{METHODS}/forward_mha_rocm.py"
FP8 = f"{SRT}/layers/quantization/fp8.py"
RMS_SITES = [f"S{number}" for number in range(1, 8)]
MOVED = ["S3", "S4", "S5", "S6", "S7", "S8"]
COPIED, HONEST, UNMARKED = SiteState.COPIED, SiteState.HONEST, SiteState.UNMARKED


@cache
def of(version: str) -> Census:
    """A release's census; skips if the release is not available."""
    target = load_overlay(ROOT)["sglang"].target
    try:
        tree = release_tree(ROOT, target, version)
    except EnvironmentFailure as error:
        pytest.skip(f"the release is not available: {error}")
    return take_census(tree, within="python/sglang/")


def rows(census: Census, sites: Iterable[str]) -> list[SiteRow]:
    return [row for row in census.rows if row.site in set(sites)]


def one(census: Census, site: str) -> SiteRow:
    (row,) = rows(census, [site])
    return row


@pytest.mark.slow("every recorded release")
@pytest.mark.parametrize(
    ("version", "rms", "flatten", "consumer"),
    [
        ("0.5.10.post1", SiteState.ROW_MAJOR, SiteState.ROW_MAJOR, SiteState.GONE),
        ("0.5.12", SiteState.ROW_MAJOR, SiteState.ROW_MAJOR, SiteState.COPIES_ALL),
        (
            "0.5.12.post1",
            SiteState.ROW_MAJOR,
            SiteState.ROW_MAJOR,
            SiteState.COPIES_ALL,
        ),
        ("0.5.13", UNMARKED, SiteState.ROW_MAJOR, SiteState.ASSUMES),
        ("0.5.13.post1", UNMARKED, SiteState.ROW_MAJOR, SiteState.ASSUMES),
        ("0.5.14", UNMARKED, UNMARKED, SiteState.ASSUMES),
        ("0.5.15", COPIED, COPIED, SiteState.NEEDS_HONEST),
        ("0.5.15.post1", COPIED, COPIED, SiteState.NEEDS_HONEST),
        ("0.5.16", COPIED, COPIED, SiteState.NEEDS_HONEST),
        ("0.5.17", COPIED, COPIED, SiteState.NEEDS_HONEST),
        ("0.5.18", COPIED, COPIED, SiteState.NEEDS_HONEST),
        ("0.5.19", COPIED, HONEST, SiteState.NEEDS_HONEST),
        ("0.5.20", COPIED, HONEST, SiteState.NEEDS_HONEST),
        ("0.5.21", COPIED, HONEST, SiteState.NEEDS_HONEST),
        ("0.5.22", HONEST, HONEST, SiteState.NEEDS_HONEST),
        ("0.5.23", HONEST, HONEST, SiteState.NEEDS_HONEST),
    ],
)
def test_every_site_of_every_release_has_a_state(
    version: str, rms: SiteState, flatten: SiteState, consumer: SiteState
) -> None:
    census = of(version)

    assert {row.site for row in census.rows} >= {site.id for site in CATALOGUE}
    assert {row.state for row in rows(census, RMS_SITES)} == {rms}
    assert {row.state for row in rows(census, ["S8"])} == {flatten}
    assert one(census, "C").state is consumer
    # Whether a call runs is never read from the source.
    assert {row.live for row in census.rows} == {None}


@pytest.mark.parametrize("version", ["0.5.18", "0.5.20", "0.5.23"])
def test_moved_sites_are_found(version: str) -> None:
    census = of(version)

    places = {(r.site, r.path, (r.scope or "").split(".")[-1]) for r in census.rows}
    prepare, normal = "forward_absorb_rocm_prepare", "forward_normal_rocm_prepare"
    assert {place for place in places if place[0] in MOVED} == {
        ("S3", MLA_ROCM, prepare),
        ("S4", MLA_ROCM, prepare),
        ("S5", MHA_ROCM, normal),
        ("S6", MHA_ROCM, normal),
        ("S7", MHA_ROCM, normal),
        ("S8", MLA_ROCM, "rocm_absorb_v_bmm"),
    }
    for row in rows(census, ["S8"]):
        # Its function only returns the scale: a caller passes it to the projection.
        assert row.kernel == FLATTEN and " o_proj" in row.detail
        assert row.line is not None


def test_one_call_for_two_sites_is_named_in_both_rows() -> None:
    first, second = one(of("0.5.22"), "S1"), one(of("0.5.22"), "S2")

    assert first.path == f"{SRT}/layers/layer_boundary/residual/add_norm.py"
    assert (first.path, first.line) == (second.path, second.line)
    for row in (first, second):
        assert "one call stands for S1 and S2" in row.detail
    both = rows(of("0.5.20"), ["S1", "S2"])
    assert len({row.line for row in both}) == 2
    assert not any("stands for" in row.detail for row in both)


V4 = f"{SRT}/models/deepseek_v4.py"
V2 = f"{SRT}/models/deepseek_v2.py"
LAYERNORM = f"{SRT}/layers/layernorm.py"


def outside(version: str, path: str) -> list[SiteRow]:
    """The calls outside the catalogue in a file of a release."""
    return [r for r in rows(of(version), [UNKNOWN_SITE]) if r.path == path]


@pytest.mark.parametrize("version", ["0.5.15", "0.5.15.post1", "0.5.16"])
def test_the_producer_of_31490_is_a_danger(version: str) -> None:
    """It writes transposed bytes with strides that are not honest, and its consumer
    uses the strides. The same call is right in earlier releases with their consumer,
    and in later ones with honest strides."""
    consumer = one(of(version), "C")
    paired = [row for row in outside(version, V4) if row.consumer is not None]

    assert {row.consumer for row in paired} == {f"{consumer.path}:{consumer.line}"}
    assert {row.state for row in paired} == {UNMARKED}
    assert any("wq_b" in row.detail for row in paired)
    findings = [f for f in check_adopted(of(version)) if f.path == V4]
    dangers = [f for f in findings if "dangerous mix" in f.what]
    assert [(f.scope, f.site) for f in dangers] == [
        ("_fused_rmsnorm_fp8_quant", UNKNOWN_SITE)
    ]
    assert "transposes it again" in dangers[0].what


@pytest.mark.parametrize(
    ("version", "state"),
    [("0.5.13", UNMARKED), ("0.5.14", UNMARKED)]
    + [(f"0.5.{number}", HONEST) for number in (17, 19, 21, 23)],
)
def test_the_same_call_is_right_elsewhere(version: str, state: SiteState) -> None:
    paired = [row for row in outside(version, V4) if row.consumer is not None]

    assert {row.state for row in paired} == {state}
    said = [f.what for f in check_adopted(of(version)) if f.path == V4]
    assert any("read right by" in what for what in said)
    assert not any("dangerous" in what for what in said)


@pytest.mark.parametrize("version", ["0.5.15", "0.5.16", "0.5.17", "0.5.23"])
def test_an_unpaired_scale_is_a_separate_finding(version: str) -> None:
    """A scale kept in an attribute, or made by a function that is passed as a value."""
    [row] = [row for row in outside(version, V4) if row.consumer is None]

    assert f"{V4}:" in row.detail
    found = [f for f in check_adopted(of(version)) if f.path == V4]
    [unpaired] = [f for f in found if "could not be paired" in f.what]
    assert unpaired.line == row.line and row.detail in (unpaired.found or "")


@pytest.mark.parametrize(
    ("version", "state"),
    [("0.5.13", UNMARKED), ("0.5.15", COPIED), ("0.5.17", COPIED), ("0.5.23", HONEST)],
)
def test_the_clamp_is_counted_and_paired(version: str, state: SiteState) -> None:
    [row] = outside(version, V2)

    assert (row.kernel, row.state) == ("fused_clamp_act_mul", state)
    assert row.consumer is not None and "down_proj" in row.detail
    assert not outside("0.5.12", V2)


@pytest.mark.parametrize(
    ("version", "fused"), [("0.5.17", COPIED), ("0.5.19", HONEST), ("0.5.23", HONEST)]
)
def test_the_all_reduce_and_its_fallbacks_are_counted(
    version: str, fused: SiteState
) -> None:
    found = outside(version, LAYERNORM)

    assert [row.state for row in found] == [fused, COPIED, fused, COPIED]
    assert {row.consumer for row in found} == {None}
    assert not outside("0.5.16", LAYERNORM)


@pytest.mark.parametrize("version", ["0.5.19", "0.5.23"])
def test_a_per_token_scale_is_not_a_block_scale(version: str) -> None:
    scopes = {row.scope for row in rows(of(version), [UNKNOWN_SITE])}
    assert "_fused_rmsnorm_fp8_per_token_quant" not in scopes


@pytest.mark.parametrize("version", ["0.5.12", "0.5.14", "0.5.15", "0.5.20"])
def test_a_linear_s_own_quantization_is_right_and_has_no_row(version: str) -> None:
    assert not outside(version, FP8_UTILS)


@pytest.mark.parametrize("version", ["0.5.15", "0.5.17", "0.5.20", "0.5.23"])
def test_the_consumer_with_each_layout(version: str) -> None:
    """From 0.5.15 on only honest strides are right for both GEMMs."""
    detail = one(of(version), "C").detail

    assert "row-major: CK right, Triton wrong" in detail
    assert "transposed behind row-major strides: CK wrong, Triton right" in detail
    assert "transposed behind honest strides: CK right, Triton right" in detail


def test_the_dangerous_mix_of_0_5_13() -> None:
    found = {f.site: f.what for f in check_adopted(of("0.5.13"))}

    assert "dangerous mix" in found["S8"] and "dangerous mix" in found["C"]
    assert "dangerous" not in found["S1"]
    assert "Triton wrong" in one(of("0.5.13"), "C").detail
    whole = [f.what for f in check_adopted(of("0.5.14")) if f.site != UNKNOWN_SITE]
    assert not any("dangerous" in what for what in whole)


def test_callers_are_found_through_imports(pins: Pins) -> None:
    """A producer in a separate file, whose caller feeds the projection."""
    tree = edited(
        pins.tree("sglang"),
        MLA,
        ("fused_flatten_fp8_group_quant(\n", "flatten_for(\n"),
        ("\n\nclass Deep", "\nfrom .flattened import flatten_for\n\nclass Deep"),
    )
    source = (
        b"from aiter.x import fused_flatten_fp8_group_quant as flatten\n"
        b"def flatten_for(x, **kwargs):\n"
        b"    return flatten(x, group_size=128, transpose_scale=True)\n"
    )
    apart = f"{METHODS}/flattened.py"
    row = one(take_census(EditedTree(tree, {apart: source})), "S8")
    assert (row.path, row.scope, row.line) == (apart, "flatten_for", 3)
    assert row.state is UNMARKED and "given to o_proj" in row.detail
