"""Every edit goes into the patch that owns it, or is refused."""

from __future__ import annotations

from dataclasses import replace

import pytest

from conftest import Pins
from overlaykit.core.errors import CannotApply, InputError
from overlaykit.refresh.compute import Refreshed, refresh
from overlaykit.refresh.edits import Edits
from overlaykit.repository.merge import MergeStore
from overlaykit.series.carried import Carried
from overlaykit.series.lock import TreeWithModes, lock_target
from overlaykit.series.patches import apply_hunks, split_lines
from overlaykit.series.quilt import NewFile, Series, read_header
from overlaykit.series.remake import Contents, remake

ATTENTION = "python/sglang/srt/models/deepseek_common/attention_forward_methods"
MLA, MHA = f"{ATTENTION}/forward_mla.py", f"{ATTENTION}/forward_mha.py"
COMMUNICATOR = "python/sglang/srt/layers/communicator.py"
FP8 = "python/sglang/srt/layers/quantization/fp8_utils.py"


def no_sites(path: str, scope: str) -> tuple[str, ...]:
    raise AssertionError(f"nobody had to ask for the sites of {scope} in {path}")


def left(series: Series, release: TreeWithModes, path: str) -> bytes:
    """A file after a series, with hunks at exactly their line numbers."""
    data = release.read(path)
    for _, diff in series.diffs(path):
        assert data is not None
        data = apply_hunks(data, diff.hunks)
    assert data is not None
    return data


def edited(data: bytes, old: bytes, new: bytes) -> bytes:
    assert data.count(old) == 1, f"{old!r} stands {data.count(old)} times"
    return data.replace(old, new)


def put_back(
    pins: Pins,
    changed: dict[str, bytes],
    into: str | None = None,
    target: str = "sglang",
) -> Refreshed:
    return check(pins.overlay[target], pins.tree(target), changed, into)


def check(
    carried: Carried,
    release: TreeWithModes,
    changed: dict[str, bytes],
    into: str | None = None,
) -> Refreshed:
    """Refresh; check that the new series gives the edited files and can be locked."""
    made = refresh(carried, Edits(changed, (), ()), release, into, no_sites)
    for path, data in changed.items():
        assert left(made.series, release, path) == data
    for path in set(carried.series.paths) - changed.keys():
        assert left(made.series, release, path) == left(carried.series, release, path)
    lock_target(
        carried.target,
        release,
        carried.lock.dist,
        made.series,
        made.new_files,
        None,
    )
    for was, now in zip(carried.series.patches, made.series.patches, strict=True):
        assert was.header == now.header
    return made


def other(was: Series, now: Series) -> list[str]:
    """The patches whose bytes differ."""
    pairs = zip(was.patches, now.patches, strict=True)
    return [a.name for a, b in pairs if a.data != b.data]


@pytest.mark.parametrize("target", ["sglang", "aiter"])
def test_no_edit_no_change(pins: Pins, target: str) -> None:
    made = put_back(pins, {}, target=target)
    assert made.series == pins.overlay[target].series
    assert made.placed == ()


@pytest.mark.parametrize("target", ["sglang", "aiter"])
def test_a_line_in_each_hunk(pins: Pins, target: str) -> None:
    carried, release = pins.overlay[target], pins.tree(target)
    for patch in carried.series.patches:
        for hunk in (hunk for diff in patch.files for hunk in diff.hunks):
            data = left(carried.series, release, hunk.path)
            change = hunk.changes[0]
            at = change.new_line - hunk.new_start + len(change.added)
            new = [*hunk.new[:at], b"# edited\n", *hunk.new[at:]]
            after = edited(data, b"".join(hunk.new), b"".join(new))
            made = put_back(pins, {hunk.path: after}, target=target)
            [placed] = made.placed
            assert placed.patch == patch.name
            assert patch.name in other(carried.series, made.series)
            assert split_lines(after)[placed.line - 1] == b"# edited\n"


def test_all_scopes_at_once(pins: Pins) -> None:
    """Edits of several files and patches, including two patches of one file."""
    carried, release = pins.overlay["sglang"], pins.tree("sglang")
    changed = {p: left(carried.series, release, p) for p in carried.series.paths}
    for path, old in (
        (FP8, b"        x_scale = x_scale_for_gemm("),
        (
            COMMUNICATOR,
            b"                local_hidden_states = local_hidden_states.con",
        ),
        (MLA, b"                attn_bmm_output = quant_pretransposed_scale(\n"),
        (MHA, b"            kv_a_quanted, kv_a, _, _ = quant_pretransposed_scale(\n"),
    ):
        changed[path] = edited(changed[path], old, b"# edited\n" + old)
    old = b"                            q, _, k_nope, _ = quant_pretransposed_scale(\n"
    changed[MLA] = edited(changed[MLA], old, b"# edited\n" + old)
    made = put_back(pins, changed)
    assert [p.patch[:4] for p in made.placed] == [
        "0001", "0002", "0003", "0005", "0004"
    ]  # fmt: skip


def test_through_a_later_patch_of_the_file(pins: Pins) -> None:
    """0005 changes forward_mla after 0003: its hunk moves, its lines do not."""
    carried = pins.overlay["sglang"]
    data = left(carried.series, pins.tree("sglang"), MLA)
    old = b"                            q, _, k_nope, _ = quant_pretransposed_scale(\n"
    made = put_back(pins, {MLA: edited(data, old, b"# a\n# b\n" + old)})
    assert other(carried.series, made.series) == [
        "0003-forward-mla-producers.patch",
        "0005-o-proj-flatten.patch",
    ]
    [was], [now] = (s.patches[4].files[0].hunks for s in (carried.series, made.series))
    assert now.lines == was.lines
    assert now.old_start == was.old_start + 2


@pytest.mark.parametrize("after", [False, True])
def test_at_the_very_edge_of_a_hunk(pins: Pins, after: bool) -> None:
    carried = pins.overlay["sglang"]
    hunk = carried.series.patches[1].files[0].hunks[1]
    data = left(carried.series, pins.tree("sglang"), COMMUNICATOR)
    block = b"".join(hunk.new)
    new = block + b"# edited\n" if after else b"# edited\n" + block
    made = put_back(pins, {COMMUNICATOR: edited(data, block, new)})
    assert made.placed[0].patch == "0002-communicator-producers.patch"


def test_an_added_line_deleted(pins: Pins) -> None:
    data = left(pins.overlay["sglang"].series, pins.tree("sglang"), COMMUNICATOR)
    lines = split_lines(data)
    [at] = [n for n, line in enumerate(lines) if b"The gather moves raw" in line]
    made = put_back(pins, {COMMUNICATOR: b"".join(lines[:at] + lines[at + 1 :])})
    assert b"# The gather moves raw" not in made.series.patches[1].data
    assert (made.placed[0].removed, made.placed[0].added) == (1, 0)


def test_a_new_import(pins: Pins) -> None:
    data = left(pins.overlay["sglang"].series, pins.tree("sglang"), MLA)
    old = b"        quant_pretransposed_scale,\n"
    made = put_back(pins, {MLA: edited(data, old, old + b"        another,\n")})
    assert made.placed[0].patch == "0003-forward-mla-producers.patch"
    assert b"+        another,\n" in made.series.patches[2].data


def test_outside_every_scope(pins: Pins) -> None:
    data = left(pins.overlay["sglang"].series, pins.tree("sglang"), COMMUNICATOR)
    old = b"    def prepare_mlp(\n"
    changed = {COMMUNICATOR: edited(data, old, old + b"        # edited\n")}
    line = (
        changed[COMMUNICATOR][: changed[COMMUNICATOR].index(b"# ed")].count(b"\n") + 1
    )
    with pytest.raises(CannotApply) as refused:
        put_back(pins, changed)
    [finding] = refused.value.findings
    assert (finding.path, finding.line) == (COMMUNICATOR, line)
    assert finding.scope == "LayerCommunicator.prepare_mlp"
    assert finding.next_step and "--into PATCH" in finding.next_step


def test_into_a_patch_with_the_sites_of_the_new_scope(pins: Pins) -> None:
    carried, release = pins.overlay["sglang"], pins.tree("sglang")
    data = left(carried.series, release, COMMUNICATOR)
    old = b"    def prepare_mlp(\n"
    changed = {COMMUNICATOR: edited(data, old, old + b"        # edited\n")}
    patch = "0004-forward-mha-producers.patch"
    asked = []

    def sites(path: str, scope: str) -> tuple[str, ...]:
        asked.append((path, scope))
        return ("S1", "S9")

    made = refresh(carried, Edits(changed, (), ()), release, patch, sites)
    assert asked == [(COMMUNICATOR, "LayerCommunicator.prepare_mlp")]
    assert made.placed[0].patch == patch
    assert left(made.series, release, COMMUNICATOR) == changed[COMMUNICATOR]
    # S1 already belongs to another patch.
    named = read_header(made.series.patches[3]).sites
    was = read_header(carried.series.patches[3]).sites
    assert named == {**was, "LayerCommunicator.prepare_mlp": ("S9",)}
    dist, target = carried.lock.dist, carried.target
    lock_target(target, release, dist, made.series, made.new_files, None)
    none = refresh(carried, Edits(changed, (), ()), release, patch, lambda *_: ())
    assert none.series.patches[3].header == carried.series.patches[3].header


def test_a_file_that_no_patch_changes(pins: Pins) -> None:
    carried, release = pins.overlay["sglang"], pins.tree("sglang")
    path = "python/sglang/srt/layers/layernorm.py"
    data = release.read(path)
    assert data is not None
    changed = {path: b"# edited\n" + data}
    with pytest.raises(CannotApply) as refused:
        put_back(pins, changed)
    assert refused.value.findings[0].line == 1
    made = refresh(
        carried,
        Edits(changed, (), ()),
        release,
        "0002-communicator-producers.patch",
        lambda *_: (),
    )
    assert left(made.series, release, path) == changed[path]
    with pytest.raises(InputError, match=r"patch 0009\.patch does not exist"):
        put_back(pins, changed, "0009.patch")


@pytest.fixture
def shared_scope(pins: Pins) -> tuple[Carried, bytes]:
    """A series with another patch of prepare_attn, and its result: one comment at the
    head of the function, and one right after a line of 0002."""
    carried, release = pins.overlay["sglang"], pins.tree("sglang")
    before = left(carried.series, release, COMMUNICATOR)
    head = b"    def prepare_attn(\n"
    near = b"                                qkv_a_projection(self.qkv_latent_func),\n"
    at = before.index(b"\n", before.rindex(near) + len(near)) + 1
    after = before[:at] + b"# of 0006\n" + before[at:]
    after = edited(after, head, head + b"        # of 0006\n")
    mode = carried.modes[COMMUNICATOR]
    header = carried.series.patches[0].header.replace(
        b"X-Sites: aiter_w8a8_block_fp8_linear: C\n", b"X-Sites:\n"
    )
    with MergeStore() as store:
        change = {COMMUNICATOR: Contents(mode, before, after)}
        patch = remake("0006-more.patch", header, change, store)
    series = Series((*carried.series.patches, patch))
    lock = lock_target(
        carried.target, release, carried.lock.dist, series, carried.new_files, None
    )
    return replace(carried, series=series, lock=lock), after


def test_two_patches_of_one_scope(
    pins: Pins, shared_scope: tuple[Carried, bytes]
) -> None:
    carried, data = shared_scope
    release = pins.tree("sglang")
    first, more = "0002-communicator-producers.patch", "0006-more.patch"
    head = b"    def prepare_attn(\n        # of 0006\n"

    def owner(after: bytes, into: str | None = None) -> str:
        [placed] = check(carried, release, {COMMUNICATOR: after}, into).placed
        return placed.patch

    # By distance: 0002 has no line within fifty lines.
    assert owner(edited(data, head, head + b"        # edited\n")) == more
    # By the lines that the edit changes, even if another patch's lines are near.
    at = data.rindex(b"# of 0006\n")
    assert owner(data[:at] + b"# edited\n" + data[at + 10 :]) == more
    at = data.rindex(b"                            quant_pretransposed_scale(\n")
    changed = data[:at] + data[at:].replace(b"scale(\n", b"scale(  # edited\n", 1)
    assert owner(changed) == first
    # Near both or near neither: in doubt.
    at = data.rindex(b"# of 0006\n")
    for doubt in (data[:at] + b"# edited\n" + data[at:], _in_the_middle(data)):
        with pytest.raises(CannotApply) as refused:
            owner(doubt)
        [finding] = refused.value.findings
        assert finding.patch == f"{first}, {more}"
        assert finding.scope == "LayerCommunicator.prepare_attn"
        for patch in (first, more):
            assert f"--into {patch}" in (finding.next_step or "")
    assert owner(_in_the_middle(data), first) == first
    assert owner(_in_the_middle(data), more) == more


def _in_the_middle(data: bytes) -> bytes:
    """A comment half way between the head of prepare_attn and 0002's first line."""
    lines = split_lines(data)
    start = lines.index(b"    def prepare_attn(\n")
    at = start + 22
    return b"".join([*lines[:at], b"        # edited\n", *lines[at:]])


def test_a_patch_with_nothing_left(pins: Pins) -> None:
    carried, release = pins.overlay["sglang"], pins.tree("sglang")
    before = release.read(COMMUNICATOR)
    assert before is not None
    with pytest.raises(CannotApply, match="would no longer change anything"):
        put_back(pins, {COMMUNICATOR: before})
    assert carried.series.patches[1].files[0].path == COMMUNICATOR


def test_edited_new_files_replace_those_of_the_overlay(pins: Pins) -> None:
    carried, release = pins.overlay["sglang"], pins.tree("sglang")
    laid = replace(carried.new_files[0], data=b"# edited\n")
    more = NewFile("python/sglang/new.py", "100644", b"")
    made = refresh(carried, Edits({}, (laid, more), ()), release, None, no_sites)
    assert made.series == carried.series
    assert set(made.new_files) == {laid, more, *carried.new_files[1:]}
