"""Cells on real releases, and on releases edited by the test."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

import pytest

from conftest import ROOT, Pins
from overlaykit.sources.releases import release_tree
from overlaykit.trees.tree import EditedTree, Tree
from upstream.advice import Action, advise, headline
from upstream.cells import columns, site_key
from upstream.facts import Facts, facts_of
from upstream.outcomes import Cell, Column, Outcome, Version

from .conftest import facts_of_release

SRT = "python/sglang/srt"
METHODS = f"{SRT}/models/deepseek_common/attention_forward_methods"
MLA, MHA = f"{METHODS}/forward_mla.py", f"{METHODS}/forward_mha.py"
COMMUNICATOR = f"{SRT}/layers/communicator.py"
FP8_UTILS = f"{SRT}/layers/quantization/fp8_utils.py"
RMS = [f"S{number}" for number in range(1, 8)]
PRODUCERS = [*RMS, "S8"]


@pytest.fixture(scope="module")
def ladder(pins: Pins, releases: list[str], kernels: None) -> dict[str, Column]:
    found = [
        (Version(v, v, before_pin=v == "0.5.10.post1"), facts_of_release(pins, v))
        for v in releases
    ]
    made = columns(pins.overlay["sglang"], found)
    return dict(zip(releases, made, strict=True))


def column_of(
    pins: Pins, tree: Tree, *before: Facts, aiter: Tree | None = None
) -> Column:
    """Without ``aiter`` the tree's code is not run."""
    carried = pins.overlay["sglang"]
    facts = [*before, facts_of(carried, tree, pins.tree("sglang"), aiter=aiter)]
    found = ((Version(str(n), str(n)), one) for n, one in enumerate(facts))
    return columns(carried, found)[-1]


def edited(tree: Tree, changes: Mapping[str, tuple[str, str]], count: int = 0) -> Tree:
    """The tree with a pattern replaced in some files."""
    files: dict[str, bytes | None] = {}
    for path, (old, new) in changes.items():
        source = (tree.read(path) or b"").decode()
        text, number = re.subn(old, new, source, count=count)
        assert number, f"{path} does not hold {old}"
        files[path] = text.encode()
    return EditedTree(tree, files)


def outcomes(column: Column) -> dict[str, str]:
    return {cell.number: cell.outcome.value for cell in column.cells}


def test_the_pin(ladder: dict[str, Column]) -> None:
    column = ladder["0.5.11"]
    assert set(outcomes(column).values()) == {"clean"}
    assert column.holds
    assert headline(advise(column)) == "apply as is"


@pytest.mark.parametrize("version", ["0.5.12", "0.5.12.post1"])
def test_releases_that_merge_and_pass_the_census(
    ladder: dict[str, Column], version: str
) -> None:
    column = ladder[version]
    assert set(outcomes(column).values()) == {"clean", "offset"}
    assert column.holds
    [advice] = advise(column)
    # 0.5.12.post1 is a carried base: there is nothing to rebase.
    carried = version == "0.5.12.post1"
    assert advice.action is (Action.CARRIED if carried else Action.REBASE)
    assert len(advice.patches) == (0 if carried else 5)


@pytest.mark.parametrize("version", ["0.5.13", "0.5.13.post1"])
def test_one_producer_left_behind(ladder: dict[str, Column], version: str) -> None:
    """Its hunk merges, like those of S4 to S7, which upstream has adopted."""
    column = ladder[version]
    read = outcomes(column)
    assert {read[site] for site in (*RMS, "C", "0001", "0002", "0003", "0004")} == {
        "superseded"
    }
    assert (read["S8"], read["0005"]) == ("left behind", "left behind")
    assert any(d.startswith("S8: dangerous mix") for d in column.dangers)
    assert not column.holds
    assert headline(advise(column)) == "retire 0001 0002 0003 0004; re-derive 0005"


@pytest.mark.parametrize(
    ("live", "said"), [(True, "live, "), (False, "dead, "), (None, "")]
)
def test_the_state_of_a_site_in_words(
    pins: Pins, releases: list[str], live: bool | None, said: str
) -> None:
    facts = facts_of_release(pins, "0.5.11")
    rows = tuple(replace(row, live=live) for row in facts.rows)
    state = site_key(replace(facts, rows=rows), "S1")
    assert state == (f"row-major, {said}{COMMUNICATOR}",)


def test_a_merge_alone_never_decides(pins: Pins, releases: list[str]) -> None:
    """The facts behind the cells: git merges these hunks."""
    facts = facts_of_release(pins, "0.5.13")
    landing = {site for hunk in facts.hunks if hunk.state.lands for site in hunk.sites}
    assert landing >= {"S5", "S6", "S7", "S8"}


def test_adopted_and_then_reverted(ladder: dict[str, Column]) -> None:
    assert outcomes(ladder["0.5.14"])["S8"] == "superseded"
    assert not ladder["0.5.14"].dangers
    for version in ("0.5.15", "0.5.15.post1", "0.5.16", "0.5.17"):
        read = outcomes(ladder[version])
        assert {read[site] for site in PRODUCERS} == {"reverted upstream"}, version
        assert read["C"] == "superseded"
        assert headline(advise(ladder[version])) == (
            "retire 0001; re-derive 0002 0003 0004 0005"
        )


@pytest.mark.parametrize("version", ["0.5.15", "0.5.15.post1", "0.5.16"])
def test_a_danger_outside_the_catalogue(
    ladder: dict[str, Column], version: str
) -> None:
    """SGLang 31490: right again from 0.5.17 on, with the very same consumer."""
    [danger] = ladder[version].dangers
    assert "deepseek_v4.py" in danger and "dangerous mix" in danger
    assert not ladder["0.5.17"].dangers
    assert ladder["0.5.17"].unpaired
    read = [call for call in ladder["0.5.17"].unforeseen if "deepseek_v4.py" in call]
    assert read and all(", read by " in call for call in read)


def test_moved_and_dead(ladder: dict[str, Column]) -> None:
    for version in ("0.5.18", "0.5.19", "0.5.20"):
        for site in PRODUCERS:
            cell = ladder[version].cell(site)
            assert cell.dead, (version, site)
            if site in ("S1", "S2"):
                assert cell.moved_to is None
                continue
            assert cell.moved_to
            assert cell.moved_to.endswith("_rocm.py"), (version, site)
    assert ladder["0.5.18"].cell("S3").label == (
        "reverted upstream, dead, moved to forward_mla_rocm.py"
    )
    assert ladder["0.5.19"].cell("S8").label == (
        "adopted, dead, moved to forward_mla_rocm.py"
    )


def test_the_newest(ladder: dict[str, Column], releases: list[str]) -> None:
    for version in ("0.5.19", "0.5.22", "0.5.23"):
        [advice] = advise(ladder[version])
        assert advice.action is Action.CARRIED
    # What to do if no base were carried for it.
    column = replace(ladder["0.5.22"], known=None)
    [advice] = advise(column)
    assert advice.action is Action.REVIVE
    assert len(advice.patches) == 5
    dead = [cell.row for cell in column.sites if cell.dead]
    assert dead == [*PRODUCERS, "C"]
    # Each guard, by its place and what it looks for.
    for guard in ("add_norm.py", "forward_mla_rocm.py", "forward_mha_rocm.py"):
        [*found] = (r for r in advice.reasons if re.search(rf"{guard}:\d+: ", r))
        assert found and all("reads weight_scale, which" in r for r in found)
    # A hunk without a site is not called adopted.
    assert any("_scattered_to_tp_attn_full" in reason for reason in advice.reasons)


def test_older_than_the_pin(ladder: dict[str, Column]) -> None:
    """Ten of its hunks merge, but their scales have no consumer."""
    column = ladder["0.5.10.post1"]
    assert set(outcomes(column).values()) == {"predates"}
    [advice] = advise(column)
    assert advice.action is Action.NOTHING


def test_nothing_is_reverted_without_the_earlier_columns(
    pins: Pins, releases: list[str]
) -> None:
    facts = facts_of_release(pins, "0.5.15")
    version = Version("0.5.15", "0.5.15")
    [column] = columns(pins.overlay["sglang"], [(version, facts)])
    read = outcomes(column)
    assert "reverted upstream" not in read.values()
    for site in PRODUCERS:
        assert read[site] == "conflict", site
    # Git merges the hunks of S5 to S7, but the result is wrong.
    landing = [h for h in facts.hunks if {"S5", "S6", "S7"} & set(h.sites)]
    assert all(hunk.state.lands for hunk in landing)
    assert "the census of the result finds" in column.cell("S5").reasons[0]


def test_releases_that_run_what_they_adopted(ladder: dict[str, Column]) -> None:
    """Only what runs is retired: nothing is from 0.5.18 on."""
    for version, column in ladder.items():
        actions = {advice.action for advice in advise(column)}
        dead = {cell.row for cell in column.sites if cell.dead}
        assert dead in (set(), {*PRODUCERS, "C"}), version
        assert not (dead and Action.RETIRE in actions), version
        assert not (Action.REVIVE in actions and not dead), version
    shut = [v for v, column in ladder.items() if column.cell("S1").dead]
    assert shut == [v for v in ladder if v >= "0.5.18"]


def test_upstream_merged_our_own_lines(pins: Pins, kernels: None) -> None:
    """The pull request was merged: the series' lines, in files that changed later."""
    tree = edited(
        pins.patched("sglang"),
        dict.fromkeys((MLA, MHA, COMMUNICATOR, FP8_UTILS), (r"\A", "# A line more.\n")),
        count=1,
    )
    column = column_of(pins, tree, aiter=pins.patched("aiter"))
    assert set(outcomes(column).values()) == {"upstreamed"}
    assert headline(advise(column)) == "retire 0001 0002 0003 0004 0005"
    # What is not seen to run is not called superfluous.
    [advice] = advise(column_of(pins, tree))
    assert (advice.action, len(advice.patches)) == (Action.DECIDE, 5)
    assert any("is live is not run: AITER" in reason for reason in advice.reasons)


def test_reverted_sites(pins: Pins) -> None:
    """Adopted in one column, row-major again in the next."""
    carried, base = pins.overlay["sglang"], pins.tree("sglang")
    adopted = facts_of(carried, pins.patched("sglang"), base)
    column = column_of(pins, pins.patched("sglang", without=["0004"]), adopted)
    read = outcomes(column)
    assert {read[site] for site in ("S5", "S6", "S7", "0004")} == {"reverted upstream"}
    # Without the earlier column, they count as left behind.
    alone = outcomes(column_of(pins, pins.patched("sglang", without=["0004"])))
    assert {alone[site] for site in ("S5", "S6", "S7", "0004")} == {"left behind"}


def test_gone(pins: Pins) -> None:
    call = r"fused_flatten_fp8_group_quant\("
    column = column_of(pins, edited(pins.tree("sglang"), {MLA: (call, "other(")}))
    read = outcomes(column)
    assert read["S8"] in ("gone", "unsure")
    assert not column.cell("0005").outcome.lands
    assert read["S3"] == "clean"


def test_a_call_that_the_census_cannot_read_is_unsure(pins: Pins) -> None:
    """The flag comes from a dict that the census cannot follow; the hunk may merge."""
    tree = edited(
        pins.tree("sglang"),
        {MHA: (r"(res1=None,\n\s*output_unquantized_inp1=\w+,\n)", r"\1**options,\n")},
    )
    column = column_of(pins, tree)
    for site in ("S5", "S6"):
        assert column.cell(site).outcome is Outcome.UNSURE, site
    assert column.cell("0004").outcome is Outcome.UNSURE
    assert Action.DECIDE in {one.action for one in advise(column)}


def test_a_consumer_that_upstream_removed(pins: Pins) -> None:
    """Without a consumer, the merges of its producers mean nothing."""
    kernel = "gemm_a8w8_blockscale_bpreshuffle"
    column = column_of(
        pins, edited(pins.tree("sglang"), {FP8_UTILS: (kernel, "other")})
    )
    assert column.cell("C").outcome in (Outcome.GONE, Outcome.UNSURE)
    for site in PRODUCERS:
        assert not column.cell(site).outcome.lands, site


def test_every_cell_has_reasons(ladder: dict[str, Column]) -> None:
    """And the releases have no unsure cell."""
    cells: list[Cell] = [cell for column in ladder.values() for cell in column.cells]
    assert all(cell.reasons for cell in cells)
    assert not [c for c in cells if c.outcome is Outcome.UNSURE]


def test_every_patch_gets_one_action(ladder: dict[str, Column]) -> None:
    for version, column in ladder.items():
        named = [patch for one in advise(column) for patch in one.patches]
        if named:
            assert sorted(named) == [cell.row for cell in column.patches], version


def test_clean_cells_agree_with_the_census_of_the_merged_tree(
    pins: Pins, releases: list[str]
) -> None:
    """On 0.5.12.post1 the merged tree has the series' states at every site."""
    tree = release_tree(ROOT, pins.overlay["sglang"].target, "0.5.12.post1")
    facts = facts_of(pins.overlay["sglang"], tree, pins.tree("sglang"))
    assert {row.site: row.state.value for row in facts.merged if row.site != "?"} == {
        **dict.fromkeys(PRODUCERS, "transposed and marked"),
        "C": "copies unmarked scales only",
    }
    assert facts.wrong == ()
