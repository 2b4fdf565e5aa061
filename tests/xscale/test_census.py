"""The census on real releases, and on small edits of them."""

from __future__ import annotations

import ast
from collections.abc import Collection
from typing import Protocol

import pytest

from overlaykit.trees.tree import EditedTree, Tree
from xscale.census import Census, SiteRow, check_adopted, take_census
from xscale.sites import CATALOGUE, FLATTEN, GEMM, RMS, Role, SiteState

SRT = "python/sglang/srt"
COMMUNICATOR = f"{SRT}/layers/communicator.py"
METHODS = f"{SRT}/models/deepseek_common/attention_forward_methods"
MLA, MHA = f"{METHODS}/forward_mla.py", f"{METHODS}/forward_mha.py"
FP8_UTILS = f"{SRT}/layers/quantization/fp8_utils.py"
OVERLAY = f"{SRT}/layers/quantization/bpreshuffle_scale.py"
PRODUCERS = [f"S{i}" for i in range(1, 9)]
COPY = "x_scale = x_scale.transpose(-1, -2).contiguous().view(*x_scale.shape)"
MARK = "setattr(scale, _MARKER, True)"
FLATTENED = """\
                attn_bmm_output = fused_flatten_fp8_group_quant(
                    attn_bmm_output, group_size=128, dtype_quant=torch.float8_e4m3fn
                )
"""


class Pins(Protocol):
    def tree(self, target: str) -> Tree: ...

    def patched(self, target: str, without: Collection[str] = ()) -> Tree: ...


def edited(tree: Tree, path: str, *replacements: tuple[str, str]) -> Tree:
    """The tree with the first occurrence of each text replaced in one file."""
    source = (tree.read(path) or b"").decode()
    for old, new in replacements:
        assert old in source, f"{path} does not hold {old!r}"
        source = source.replace(old, new, 1)
    ast.parse(source)
    return EditedTree(tree, {path: source.encode()})


def states(census: Census) -> dict[str, SiteState]:
    found = {row.site: row.state for row in census.rows}
    assert len(found) == len(census.rows), census.rows
    return found


def only(census: Census, site: str) -> SiteRow:
    (row,) = (row for row in census.rows if row.site == site)
    return row


def rest(census: Census, *sites: str) -> set[SiteState]:
    """The states of the producers that are not named."""
    return {
        row.state
        for row in census.rows
        if row.role is Role.PRODUCER and row.site not in sites
    }


def test_a_pristine_tree_has_the_catalogue_and_nothing_else(pins: Pins) -> None:
    census = take_census(pins.tree("sglang"))

    assert [row.site for row in census.rows] == [site.id for site in CATALOGUE]
    assert rest(census) == {SiteState.ROW_MAJOR}
    assert only(census, "C").state is SiteState.COPIES_ALL
    places = {
        r.site: (r.path, (r.scope or "").split(".")[-1], r.line) for r in census.rows
    }
    assert places == {
        "S1": (COMMUNICATOR, "prepare_attn", 554),
        "S2": (COMMUNICATOR, "prepare_attn", 599),
        "S3": (MLA, "forward_absorb_prepare", 140),
        "S4": (MLA, "forward_absorb_prepare", 154),
        "S5": (MHA, "forward_normal_prepare", 128),
        "S6": (MHA, "forward_normal_prepare", 169),
        "S7": (MHA, "forward_normal_prepare", 198),
        "S8": (MLA, "forward_absorb_core", 525),
        "C": (FP8_UTILS, "aiter_w8a8_block_fp8_linear", 760),
    }
    assert only(census, "S2").scope == "LayerCommunicator.prepare_attn"


def test_patched_tree_has_adopted(pins: Pins) -> None:
    census = take_census(pins.patched("sglang"))

    expected = {
        **dict.fromkeys(PRODUCERS, SiteState.MARKED),
        "C": SiteState.COPIES_UNMARKED,
    }
    assert states(census) == expected
    assert check_adopted(census) == ()


@pytest.mark.parametrize(
    ("patch", "sites"),
    [
        ("communicator", ["S1", "S2"]),
        # The patch for S8 needs the import that the patch for S3 and S4 adds.
        ("forward-mla", ["S3", "S4", "S8"]),
        ("forward-mha", ["S5", "S6", "S7"]),
        ("o-proj", ["S8"]),
        ("consumer", ["C"]),
    ],
)
def test_a_patch_left_out_names_its_sites(
    pins: Pins, patch: str, sites: list[str]
) -> None:
    findings = check_adopted(take_census(pins.patched("sglang", without=[patch])))

    assert [finding.site for finding in findings] == sites
    for finding in findings:
        assert finding.path and finding.line and finding.scope
        assert finding.expected and finding.found and finding.next_step


def test_sites_left_behind_are_distinguished_from_wrong_ones(pins: Pins) -> None:
    without = take_census(pins.patched("sglang", without=["o-proj"]))
    assuming = edited(pins.tree("sglang"), FP8_UTILS, (COPY, "pass"))
    requesting = edited(
        assuming,
        COMMUNICATOR,
        ("res1=residual,", "res1=residual, transpose_scale=True,"),
    )
    mixed = take_census(requesting)

    (left_behind,) = check_adopted(without)
    assert "left behind" in left_behind.what and "danger" not in left_behind.what
    assert states(mixed)["C"] is SiteState.ASSUMES
    found = {f.site: f.what for f in check_adopted(mixed)}
    assert "dangerous mix" in found["S1"] and "dangerous mix" not in found["S2"]
    assert "S2 are, S1, S3, S4, S5, S6, S7, S8 are row-major" in found["C"]


def test_unpatched_consumer_of_transposed_scales_is_a_dangerous_mix(pins: Pins) -> None:
    (finding,) = check_adopted(
        take_census(pins.patched("sglang", without=["consumer"]))
    )
    assert "dangerous mix" in finding.what
    assert finding.found and SiteState.COPIES_ALL.value in finding.found


@pytest.mark.parametrize(
    "edit",
    [
        (MARK, "pass"),
        (MARK, "setattr(scale, _MARKER, False)"),
        ('_MARKER = "_aiter_bpreshuffle_layout"', '_MARKER = "_another"'),
        (MARK, "setattr(scale.view(1), _MARKER, True)"),
        (
            MARK,
            MARK + "\n    scale = scale.detach()",
        ),
    ],
)
def test_adapter_that_loses_the_marker(pins: Pins, edit: tuple[str, str]) -> None:
    census = take_census(edited(pins.patched("sglang"), OVERLAY, edit))

    # The adapter gives the scale honest strides, which replace the marker.
    assert rest(census) == {SiteState.HONEST}
    findings = [f for f in check_adopted(census) if f.site in PRODUCERS]
    assert not any("danger" in finding.what for finding in findings)
    assert len(findings) == len(PRODUCERS)


@pytest.mark.parametrize(
    ("mark", "state"), [("pass", SiteState.ROW_MAJOR), (MARK, SiteState.UNKNOWN)]
)
def test_adapter_that_does_not_request(pins: Pins, mark: str, state: SiteState) -> None:
    requesting = ("(*args, transpose_scale=True, **kwargs)", "(*args, **kwargs)")
    census = take_census(
        edited(pins.patched("sglang"), OVERLAY, requesting, (MARK, mark))
    )
    assert rest(census) == {state}


@pytest.mark.parametrize(
    "edit",
    [
        (MARK, f"if kwargs.get('res1'): {MARK}"),
        (MARK, "setattr(scale, str(q), True)"),
        (MARK, f"{MARK}; scale = torch.add(scale, 0)"),
        (MARK, f"{MARK}; scale = scale.transpose(0, 1).contiguous().view(1)"),
        ("transpose_scale=True, **kwargs", "**_more(kwargs)"),
    ],
)
def test_an_unclear_adapter_is_not_guessed(pins: Pins, edit: tuple[str, str]) -> None:
    census = take_census(edited(pins.patched("sglang"), OVERLAY, edit))

    assert rest(census) == {SiteState.UNKNOWN}


def test_missing_overlay_module_is_unknown_and_keeps_the_ids(pins: Pins) -> None:
    census = take_census(EditedTree(pins.patched("sglang"), {OVERLAY: None}))

    assert [row.site for row in census.rows] == [site.id for site in CATALOGUE]
    assert {row.state for row in census.rows} == {SiteState.UNKNOWN}
    assert "no function of this tree" in only(census, "S8").detail


def test_renamed_function_is_gone_and_its_calls_unforeseen(pins: Pins) -> None:
    renamed = ("def prepare_attn(", "def prepare_attention(")
    census = take_census(edited(pins.patched("sglang"), COMMUNICATOR, renamed))

    assert only(census, "S1").state is only(census, "S2").state is SiteState.GONE
    unforeseen = [row for row in census.rows if row.site == "?"]
    assert [row.state for row in unforeseen] == [SiteState.MARKED] * 2
    assert census.rows[-2:] == tuple(unforeseen)
    assert [f.site for f in check_adopted(census)] == ["S1", "S2", "?", "?"]


def test_removed_call_is_gone(pins: Pins) -> None:
    census = take_census(
        edited(pins.tree("sglang"), MLA, (FLATTENED, "    " * 4 + "pass\n"))
    )

    assert only(census, "S8").state is SiteState.GONE
    assert only(census, "S8").path is None
    (finding,) = (f for f in check_adopted(census) if f.site == "S8")
    assert finding.found and "gone" in finding.found


@pytest.mark.parametrize(
    ("imported", "called"),
    [
        (
            "from aiter.ops.triton.quant.fused_fp8_quant import "
            "fused_rms_fp8_group_quant as quant",
            "quant(",
        ),
        (
            "import aiter.ops.triton.fused_fp8_quant as ops",
            "ops.fused_rms_fp8_group_quant(",
        ),
        (
            "import aiter.ops.triton.fused_fp8_quant",
            "aiter.ops.triton.fused_fp8_quant.fused_rms_fp8_group_quant(",
        ),
    ],
)
def test_imports_are_followed(pins: Pins, imported: str, called: str) -> None:
    import_line = (
        "from aiter.ops.triton.fused_fp8_quant import fused_rms_fp8_group_quant"
    )
    census = take_census(
        edited(
            pins.tree("sglang"),
            COMMUNICATOR,
            (import_line, imported),
            ("_res = fused_rms_fp8_group_quant(", f"_res = {called}"),
            (" fused_rms_fp8_group_quant(", f" {called}"),
        )
    )
    assert rest(census) == {SiteState.ROW_MAJOR}
    assert only(census, "S1").path == only(census, "S2").path == COMMUNICATOR


HELPER = """

def _mark(pair):
    setattr(pair[1], "_aiter_bpreshuffle_layout", True)
    return pair

"""


@pytest.mark.parametrize(
    ("after", "state"),
    [
        ("", SiteState.UNMARKED),
        ("attn_bmm_output[1]._aiter_bpreshuffle_layout = True", SiteState.MARKED),
        ("attn_bmm_output[-1]._aiter_bpreshuffle_layout = True", SiteState.MARKED),
        ("attn_bmm_output[::-1][0]._aiter_bpreshuffle_layout = True", SiteState.MARKED),
        ("attn_bmm_output[-3], attn_bmm_output[:'a']", SiteState.UNMARKED),
        ("attn_bmm_output[::0]", SiteState.UNMARKED),
        (
            "q, s = attn_bmm_output; s._aiter_bpreshuffle_layout = True",
            SiteState.MARKED,
        ),
        (
            "if gate: attn_bmm_output[1]._aiter_bpreshuffle_layout = True",
            SiteState.MARKED,
        ),
        (
            "if self: attn_bmm_output[1]._aiter_bpreshuffle_layout = True",
            SiteState.UNKNOWN,
        ),
        ("_mark(attn_bmm_output)", SiteState.MARKED),
        ("attn_bmm_output = _mark(attn_bmm_output)", SiteState.MARKED),
        ("_mark(attn_bmm_output[0])", SiteState.UNMARKED),
        (
            "attn_bmm_output = tuple(t.view(1) for t in attn_bmm_output)",
            SiteState.UNKNOWN,
        ),
    ],
)
def test_direct_call_that_requests(pins: Pins, after: str, state: SiteState) -> None:
    requesting = FLATTENED.replace("group_size", "transpose_scale=gate, group_size")
    census = take_census(
        edited(
            pins.tree("sglang"),
            MLA,
            (FLATTENED, requesting + "    " * 4 + f"{after or 'pass'}\n"),
            (
                "\nclass DeepseekMLAForwardMixin",
                f"{HELPER}\nclass DeepseekMLAForwardMixin",
            ),
        )
    )
    row = next(r for r in census.rows if r.kernel == FLATTEN and r.path)
    assert row.state is state
    assert "transpose_scale=gate" in row.detail
    assert rest(census, row.site, "S8") == {SiteState.ROW_MAJOR}


@pytest.mark.parametrize(
    ("expression", "state", "danger"),
    [
        ("s.t().contiguous().t()", SiteState.COPIED, False),
        ("s.transpose(-1, -2).contiguous().view(*s.shape)", SiteState.UNMARKED, True),
        ("s.t().contiguous().view(1)", SiteState.UNKNOWN, False),
    ],
)
def test_explicit_copy_of_the_caller_is_recognized(
    pins: Pins, expression: str, state: SiteState, danger: bool
) -> None:
    copy = (
        "                q, s = attn_bmm_output\n"
        f"                if gate: s = {expression}\n"
        "                attn_bmm_output = (q, s)\n"
    )
    census = take_census(
        edited(pins.tree("sglang"), MLA, (FLATTENED, FLATTENED + copy))
    )
    assert only(census, "S8").state is state
    (finding,) = (f for f in check_adopted(census) if f.site == "S8")
    assert ("dangerous mix" in finding.what) is danger


@pytest.mark.parametrize(
    ("view", "state"),
    [
        ("torch.as_strided(s, s.shape, (1, s.shape[0]))", SiteState.HONEST),
        ("s.as_strided(s.shape, (1, s.size(0)))", SiteState.HONEST),
        ("s.as_strided(s.shape, (1, s.size(1)))", SiteState.UNKNOWN),
        ("s.as_strided((7, 7), (1, 7))", SiteState.UNKNOWN),
        ("s.detach()", SiteState.UNMARKED),
        ("torch.as_strided(s, s.shape, (s.shape[1], 1))", SiteState.UNMARKED),
        ("s.contiguous()", SiteState.UNKNOWN),
    ],
)
def test_strides_of_a_transposed_scale_are_followed(
    pins: Pins, view: str, state: SiteState
) -> None:
    """Flatten's own strides depend on AITER's release; as_strided makes them honest."""
    requesting = FLATTENED.replace("group_size", "transpose_scale=True, group_size")
    viewed = (
        "                q, s = attn_bmm_output\n"
        f"                attn_bmm_output = (q, {view})\n"
    )
    census = take_census(
        edited(pins.tree("sglang"), MLA, (FLATTENED, requesting + viewed))
    )
    assert only(census, "S8").state is state


@pytest.mark.parametrize(
    ("guarded", "state"),
    [
        (f"if not getattr(x_scale, '_aiter_bpreshuffle_layout', False): {COPY}",
         SiteState.COPIES_UNMARKED),
        (f"if not hasattr(input_scale, '_aiter_bpreshuffle_layout'): {COPY}",
         SiteState.COPIES_UNMARKED),
        (f"if getattr(x_scale, '_aiter_bpreshuffle_layout', False): {COPY}",
         SiteState.UNKNOWN),
        (f"if n > 1: {COPY}", SiteState.UNKNOWN),
        ("x_scale = torch.as_strided(x_scale, (1, 1), (1, 1))", SiteState.ASSUMES),
        ("x_scale = x_scale.t().contiguous().t() if x_scale.dim() == 2 else x_scale",
         SiteState.COPIES_ALL),
        ("if x_scale.dtype != torch.float8_e8m0fnu: " + COPY, SiteState.COPIES_ALL),
        ("x_scale = x_scale.T.contiguous().reshape(1, 1)", SiteState.COPIES_ALL),
        ("x_scale = lost_in(x_scale)", SiteState.UNKNOWN),
        # Only some arguments exchange the dimensions.
        ("x_scale = x_scale.permute(1, 0).contiguous().view(*x_scale.shape)",
         SiteState.COPIES_ALL),
        ("x_scale = x_scale.permute(0, 1).contiguous().view(*x_scale.shape)",
         SiteState.ASSUMES),
        ("x_scale = x_scale.transpose(dim0=1, dim1=-1).contiguous()",
         SiteState.ASSUMES),
        ("x_scale = x_scale.permute(*order).contiguous().view(*x_scale.shape)",
         SiteState.UNKNOWN),
    ],
)  # fmt: skip
def test_consumer_forms(pins: Pins, guarded: str, state: SiteState) -> None:
    census = take_census(edited(pins.tree("sglang"), FP8_UTILS, (COPY, guarded)))

    assert only(census, "C").state is state


def test_renamed_consumer_is_found_by_its_code(pins: Pins) -> None:
    renamed = ("def aiter_w8a8_block_fp8_linear(", "def linear(")
    census = take_census(edited(pins.tree("sglang"), FP8_UTILS, renamed))

    assert only(census, "C").scope == "linear"
    assert only(census, "C").state is SiteState.COPIES_ALL


def extra(pins: Pins, source: bytes) -> list[SiteRow]:
    """The rows that a new file adds to the adopted tree."""
    path = "python/sglang/srt/models/new.py"
    census = take_census(EditedTree(pins.patched("sglang"), {path: source}))
    rows = [row for row in census.rows if row.path == path]
    assert len(check_adopted(census)) == len(rows)
    return rows


def test_unforeseen_calls_are_never_dropped(pins: Pins) -> None:
    rows = extra(
        pins,
        b"from functools import partial\n"
        b"from aiter.x import fused_rms_fp8_group_quant as rms\n"
        b"kept = rms\n"
        b"part = partial(rms, group_size=128)\n"
        b"def outer():\n"
        b"    def inner(x):\n"
        b"        return rms(x, transpose_scale=False)\n"
        b"    return [rms(y) for y in inner]\n",
    )
    assert [(row.site, row.line, row.scope) for row in rows] == [
        ("?", 3, "<module>"),
        ("?", 4, "<module>"),
        ("?", 7, "outer.inner"),
        ("?", 8, "outer"),
    ]
    assert [row.state for row in rows] == [
        SiteState.UNKNOWN,
        SiteState.UNKNOWN,
        SiteState.ROW_MAJOR,
        SiteState.UNKNOWN,
    ]


@pytest.mark.parametrize(
    ("source", "kernels"),
    [
        (b"def fused_rms_fp8_group_quant(inp1): pass\n", []),
        (b"x = 'fused_rms_fp8_group_quant \xff'\n", [RMS]),
        (b"# coding: latin-1\n# fused_rms_fp8_group_quant, \xe9\n", []),
        (b"fused_flatten_fp8_group_quant(\n", [FLATTEN]),
        (b"gemm_a8w8_blockscale_bpreshuffle = \0\n", [GEMM]),
        (b"not Python, \xff, and names no kernel(\n", []),
    ],
)
def test_definitions_and_unreadable_files(
    pins: Pins, source: bytes, kernels: list[str]
) -> None:
    rows = extra(pins, source)

    assert [row.kernel for row in rows] == kernels
    assert all("does not parse" in row.detail for row in rows)


LINEAR = b"""
from sglang.srt.layers.linear import RowParallelLinear
from aiter.x import fused_rms_fp8_group_quant, fused_clamp_act_mul
from aiter import quantize
class Net:
    def __init__(self):
        self.down = RowParallelLinear(1, 2)
        self.other = quantize
"""


@pytest.mark.parametrize(
    ("body", "kernels"),
    [
        ("y = fused_clamp_act_mul(x)", []),
        ("y = fused_clamp_act_mul(x, dtype_quant=None)", []),
        ("y = fused_clamp_act_mul(x, dtype_quant=F)", ["fused_clamp_act_mul"]),
        ("y = fused_clamp_act_mul(x, **more)", ["fused_clamp_act_mul"]),
        ("y = quantize(x, transpose_scale=True)", ["quantize"]),
        ("y = fused_rms_fp8_group_quant(x, w, e, group_size=x.shape[-1])", []),
        ("n = x.shape[-1]; y = fused_rms_fp8_group_quant(x, w, e, group_size=n)", []),
        ("m, n = x.shape; y = fused_rms_fp8_group_quant(x, w, e, group_size=n)", []),
        ("m, n = x.shape; y = fused_rms_fp8_group_quant(x, w, e, group_size=m)", [RMS]),
        (
            "n = z.shape[-1]; y = fused_rms_fp8_group_quant(x, w, e, group_size=n)",
            [RMS],
        ),
        ("y = fused_rms_fp8_group_quant(x, w, e, group_size=w)", [RMS]),
    ],
)
def test_which_calls_make_a_block_scale(
    pins: Pins, body: str, kernels: list[str]
) -> None:
    source = (
        LINEAR + f"    def forward(self, x, w, e, more, z):\n        {body}\n".encode()
    )
    found = extra(pins, source + b"        return y\n")

    assert [row.kernel for row in found] == kernels


@pytest.mark.parametrize(
    ("body", "paired", "danger"),
    [
        # The patched consumer copies unmarked scales: right only if they are row-major.
        ("self.down(quantize(x, transpose_scale=False))", True, False),
        ("self.down(fused_clamp_act_mul(x, dtype_quant=F))", True, False),
        (
            "self.down(fused_clamp_act_mul(x, dtype_quant=F, transpose_scale=True))",
            True,
            True,
        ),
        (
            "self.other(fused_clamp_act_mul(x, dtype_quant=F, transpose_scale=True))",
            False,
            False,
        ),
        ("fused_clamp_act_mul(x, dtype_quant=F, transpose_scale=True)", False, False),
        (
            "self.within(fused_clamp_act_mul(x, dtype_quant=F, transpose_scale=True))",
            True,
            True,
        ),
    ],
)
def test_a_call_is_judged_with_its_consumer(
    pins: Pins, body: str, paired: bool, danger: bool
) -> None:
    source = (
        LINEAR
        + (
            f"    def forward(self, x):\n        return {body}\n"
            "    def within(self, pair):\n        return self.down(pair)\n"
        ).encode()
    )
    path = f"{SRT}/models/new.py"
    census = take_census(EditedTree(pins.patched("sglang"), {path: source}))

    [row] = [row for row in census.rows if row.path == path]
    assert (row.consumer is not None) is paired
    [finding] = check_adopted(census)
    assert ("dangerous mix" in finding.what) is danger
    assert ("could not be paired" in finding.what) is not paired


def test_a_scale_that_the_consumer_makes_is_judged(pins: Pins) -> None:
    """With the wrong layout, its GEMM misreads it; this gives a separate row."""
    wrong = ("transpose_scale=not use_triton", "transpose_scale=use_triton")
    census = take_census(edited(pins.tree("sglang"), FP8_UTILS, wrong))

    row = only(census, "?")
    assert row.state is SiteState.MISREAD
    found = [f for f in check_adopted(census) if f.site == "?"]
    assert "dangerous mix" in found[0].what
