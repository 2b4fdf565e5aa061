"""Broken trees: what each breaks, at which sites, and what must detect it.

A judge is only as good as the mistakes it is shown to find. Each mutant is the patched
pin with a few texts replaced. Every text must occur exactly once, so a mutant whose
text has moved fails.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Enum

from overlaykit.trees.tree import Tree
from xscale.census import check_adopted, take_census
from xscale.numeric import Case, CaseResult, Chain, Platform, Switch, Variant
from xscale.numeric.cases import BPRESHUFFLE, TRITON, TUNED_INPUT

from .test_numeric import (
    COMMUNICATOR,
    FP8_UTILS,
    LYING,
    MHA,
    MLA,
    PRODUCERS,
    SCALE,
    edited,
)


class Catcher(Enum):
    """The checks that can detect a mutant."""

    NUMERIC = "numeric"
    """A finding of the judge: bytes, values, copies, marks, a dead site, an error."""
    CENSUS = "census"
    """A finding of the census, which only reads the source."""


@dataclass(frozen=True)
class Edit:
    """``old``, which occurs once in the file, becomes ``new``."""

    path: str
    old: str
    new: str


@dataclass(frozen=True)
class Mutant:
    """``caught`` are the catchers that must name all of ``sites``.

    ``cases`` are enough to show it.
    """

    name: str
    broken: str
    edits: tuple[Edit, ...]
    sites: frozenset[str]
    cases: tuple[Case, ...]
    caught: frozenset[Catcher] = frozenset({Catcher.NUMERIC})


def mutated(tree: Tree, edits: Iterable[Edit]) -> Tree:
    """Apply the edits to a tree."""
    for edit in edits:
        tree = edited(tree, edit.path, (edit.old, edit.new))
    return tree


def small_tree(tree: Tree) -> Tree:
    """The files of the tree that the census needs: a thousandth of them."""
    return _Few(tree)


class _Few:
    """Only the files with sites are listed; any other can still be read."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self.name = tree.name

    def paths(self) -> Iterator[str]:
        return iter((COMMUNICATOR, FP8_UTILS, MHA, MLA, SCALE))

    def read(self, path: str) -> bytes | None:
        return self._tree.read(path)

    def holds(self, path: str) -> bool:
        return self._tree.holds(path)


def catches(
    tree: Tree, outcomes: Iterable[CaseResult]
) -> dict[Catcher, frozenset[str]]:
    """The sites that each catcher names."""
    named = {
        Catcher.NUMERIC: {s for o in outcomes for s in o.wrong_sites},
        Catcher.CENSUS: {
            f.site or "?" for f in check_adopted(take_census(small_tree(tree)))
        },
    }
    return {catcher: frozenset(sites) for catcher, sites in named.items() if sites}


# --- edits ------------------------------------------------------------------------

_RMS, _FLATTEN = "fused_rms_fp8_group_quant", "fused_flatten_fp8_group_quant"
_ASKS = "outputs = quant(*args, transpose_scale=True, **kwargs)"
_HONEST = "scale = scale.as_strided(shape, strides)"
_BY_STRIDES = "        for_ck = _view_by_strides(x_scale)\n"
_MARKS = "setattr(scale, _MARKER, True)"
_REFUSES = "    transposed = x_scale.t()\n    if not transposed.is_contiguous():"
_GIVES = "for_gemm = for_ck if bpreshuffle else x_scale"
_COPIES = "        return x_scale.transpose(-1, -2).contiguous().view(*x_scale.shape)\n"
_GATHERS = "local_hidden_states = local_hidden_states.contiguous()"
_LOCAL = "local_hidden_states"
_IN_GROUPS = '        and kwargs.get("group_size") == _GROUP_SIZE\n'

LIES = Edit(SCALE, *LYING)
"""Transposed bytes with row-major strides."""
TRUSTS = Edit(
    SCALE,
    _REFUSES,
    "    transposed = x_scale.view(x_scale.shape[::-1])\n"
    "    if not transposed.is_contiguous():",
)
"""A consumer that accepts such strides."""


@dataclass(frozen=True)
class Call:
    """How the series calls a site's kernel. ``target`` receives the result."""

    path: str
    target: str
    depth: int
    kernel: str
    projection: str

    def with_projection(self, projection: str) -> Edit:
        """The same call with another projection."""
        return Edit(
            self.path, self._opening(self.projection), self._opening(projection)
        )

    @property
    def forgotten(self) -> Edit:
        """The release's own call instead of the one in the series."""
        plain = f"{self.target}{self.kernel}({self._gap}"
        return Edit(self.path, self._opening(self.projection), plain)

    @property
    def _gap(self) -> str:
        return "\n" + " " * self.depth

    def _opening(self, projection: str) -> str:
        first = (f"{self._gap}{argument}," for argument in (self.kernel, projection))
        return f"{self.target}quant_pretransposed_scale({''.join(first)}{self._gap}"


_QKV_A, _Q_B = "qkv_a_projection(self.qkv_latent_func)", "self.q_b_proj"

CALLS = {
    "S1": Call(COMMUNICATOR, "_unq_bf16, _, _res = ", 28, _RMS, _QKV_A),
    "S2": Call(COMMUNICATOR, " ", 32, _RMS, _QKV_A),
    "S3": Call(MLA, "q_quanted, q_lora, k_nope, _ = ", 32, _RMS, _Q_B),
    "S4": Call(MLA, "q, _, k_nope, _ = ", 32, _RMS, _Q_B),
    "S5": Call(MHA, "q_quanted, q_lora, _, _ = ", 24, _RMS, _Q_B),
    "S6": Call(MHA, " q, _, _, _ = ", 20, _RMS, _Q_B),
    "S7": Call(MHA, "kv_a_quanted, kv_a, _, _ = ", 16, _RMS, "self.kv_b_proj"),
    "S8": Call(MLA, "attn_bmm_output = ", 20, _FLATTEN, "self.o_proj"),
}

_GATHERED = frozenset({"gather"})
_GATHER_CASES = (Case(Chain.GATHER_C10D, 3), Case(Chain.GATHER_PYNCCL, 3))
_INPUT = (Case(Chain.INPUT, 3),)
# Without a projection, they write for CK's GEMM a scale that Triton's reads as well.
_MIXED_INPUTS = tuple(Case(c, 3, TUNED_INPUT) for c in (Chain.INPUT, Chain.RESIDUAL))
_MIXED = frozenset({"S1", "S2"})
_CORE = (Case(Chain.CORE, 3),)
_IGNORED = (Case(Chain.CORE, 3, variant=Variant.IGNORED, switch=Switch.CHECK),)
_ONE_EACH = tuple(
    Case(c, 3) for c in (Chain.RESIDUAL, Chain.MLA, Chain.MHA_NSA, Chain.CORE)
)
_OF_EACH = frozenset({"S2", "S4", "S5", "S7", "S8"})
_BOTH = frozenset({Catcher.NUMERIC, Catcher.CENSUS})


def _with(cases: Iterable[Case], **change: object) -> tuple[Case, ...]:
    return tuple(Case(c.chain, c.m, c.shape, **change) for c in cases)  # type: ignore[arg-type]


def _chains_of(site: str) -> tuple[Case, ...]:
    return tuple(c for c in BPRESHUFFLE if site in c.sites and not c.chain.gathers)


def _consumer(name: str, broken: str, new: str, **more: object) -> Mutant:
    """Change the line that passes on a marked scale."""
    fields = {"sites": _OF_EACH, "cases": _ONE_EACH, **more}
    return Mutant(name, broken, (Edit(SCALE, _GIVES, new),), **fields)  # type: ignore[arg-type]


MUTANTS = (
    *(
        Mutant(
            f"{site} forgotten",
            f"{site} calls the kernel itself: right bytes, one copy",
            (call.forgotten,),
            frozenset({site}),
            _chains_of(site),
            _BOTH,
        )
        for site, call in CALLS.items()
    ),
    Mutant(
        "marked, not transposed",
        "the adapter marks a row-major scale",
        (Edit(SCALE, _ASKS, "outputs = quant(*args, **kwargs)"),),
        PRODUCERS | {"gather", "indexer"},
        BPRESHUFFLE,
    ),
    Mutant(
        "transposed, not marked, strides lie",
        "the consumer transposes once more",
        (LIES, Edit(SCALE, _MARKS, "pass")),
        PRODUCERS | {"gather", "indexer"},
        BPRESHUFFLE,
    ),
    Mutant(
        "marked, strides lie, not refused",
        "the Triton GEMM, the gather and the indexer read wrong values",
        (LIES, TRUSTS),
        _MIXED | {"gather", "indexer"},
        (*BPRESHUFFLE, *TRITON),
    ),
    _consumer(
        "wrong inverse for Triton",
        "the copy expression taken for its own inverse",
        "for_gemm = for_ck if bpreshuffle else "
        "x_scale.transpose(-1, -2).contiguous().view(*x_scale.shape)",
        cases=TRITON,
        sites=_MIXED,
    ),
    Mutant(
        "the pull request's inverse",
        "view(groups, M), which an honest scale does not have",
        (
            Edit(SCALE, _HONEST, "pass"),
            Edit(SCALE, _REFUSES, "    transposed = x_scale\n    if False:"),
            Edit(
                SCALE,
                _GIVES,
                "for_gemm = x_scale if bpreshuffle else "
                "x_scale.view(x_scale.shape[::-1]).t()",
            ),
        ),
        _MIXED,
        _with(_MIXED_INPUTS, variant=Variant.HONEST),
    ),
    Mutant(
        "gather not made row-major",
        "the all-gather is given a strided scale",
        (Edit(COMMUNICATOR, _GATHERS, "pass"),),
        _GATHERED,
        _GATHER_CASES,
    ),
    Mutant(
        "gather makes the wrong element row-major",
        "the fp8 values, which already are",
        (
            Edit(
                COMMUNICATOR,
                _GATHERS,
                f"{_LOCAL} = {_LOCAL}.contiguous() "
                f"if {_LOCAL} is hidden_states[0] else {_LOCAL}",
            ),
        ),
        _GATHERED,
        _GATHER_CASES,
    ),
    Mutant(
        "gather clones",
        "clone() keeps strides, where contiguous() does not",
        (Edit(COMMUNICATOR, _GATHERS, f"{_LOCAL} = {_LOCAL}.clone()"),),
        _GATHERED,
        _GATHER_CASES,
    ),
    Mutant(
        "mark on the fp8 values",
        "harmless to the bytes while strides are honest",
        (Edit(SCALE, _MARKS, "setattr(q, _MARKER, True)"),),
        _OF_EACH,
        _ONE_EACH,
        _BOTH,
    ),
    Mutant(
        "in-place fix-up",
        "the first consumer (Triton) rewrites the scale that the second one reads",
        (
            LIES,
            TRUSTS,
            Edit(
                SCALE,
                _BY_STRIDES,
                "        if not bpreshuffle:\n"
                "            true = x_scale.view(x_scale.shape[::-1]).t().clone()\n"
                "            return x_scale.copy_(true)\n" + _BY_STRIDES,
            ),
        ),
        _MIXED,
        _MIXED_INPUTS,
    ),
    Mutant(
        "consumer clears the mark",
        "and writes the row-major bytes back for the next one, which copies",
        (
            Edit(
                SCALE,
                _GIVES,
                f"{_GIVES}\n    delattr(x_scale, _MARKER)\n"
                "    x_scale.set_(x_scale.contiguous())",
            ),
        ),
        frozenset({"S1"}),
        _INPUT,
    ),
    Mutant(
        "producer copies",
        "the scale is cloned before it is marked",
        (Edit(SCALE, _MARKS, f"scale = scale.clone()\n    {_MARKS}"),),
        _OF_EACH,
        _ONE_EACH,
    ),
    _consumer(
        "consumer copies",
        "the scale is cloned for CK",
        "for_gemm = for_ck.clone() if bpreshuffle else x_scale",
    ),
    _consumer(
        "consumer copies for Triton",
        "as the pull request does",
        "for_gemm = for_ck if bpreshuffle else x_scale.contiguous()",
        cases=TRITON,
        sites=_MIXED,
    ),
    Mutant(
        "consumer always skips",
        "an unmarked scale is no longer transposed",
        (Edit(SCALE, _COPIES, "        return x_scale\n"),),
        _OF_EACH | _GATHERED,
        (*_with(_ONE_EACH, switch=Switch.OFF), *_GATHER_CASES),
    ),
    Mutant(
        "consumer given the other GEMM",
        "bpreshuffle and Triton exchanged",
        (Edit(FP8_UTILS, "bpreshuffle=not use_triton)", "bpreshuffle=use_triton)"),),
        PRODUCERS | {"gather"},
        TRITON,
    ),
    Mutant(
        "consumer not adopted, strides lie",
        "producers alone: today's consumer transposes once more",
        (
            LIES,
            Edit(
                FP8_UTILS,
                "x_scale = x_scale_for_gemm(input_scale, bpreshuffle=not use_triton)",
                "x_scale = input_scale\n"
                "        if not use_triton:\n"
                "            x_scale = x_scale.t().contiguous().view(*x_scale.shape)",
            ),
        ),
        _OF_EACH,
        _ONE_EACH,
    ),
    Mutant(
        "groups of 64 marked",
        "S7 quantizes in groups that this GEMM does not have",
        (
            Edit(SCALE, _IN_GROUPS, ""),
            Edit(
                MHA,
                "self.kv_a_layernorm.variance_epsilon,\n"
                + " " * 16
                + "None,\n" + " " * 16 + "None,\n" + " " * 16 + "None,\n"
                + " " * 16
                + "group_size=128,",
                "self.kv_a_layernorm.variance_epsilon, None, None, None,"
                " group_size=64,",
            ),
        ),
        frozenset({"S7"}),
        (Case(Chain.MHA, 3),),
    ),
    Mutant(
        "predicate missing",
        "ROCm 7.0 is asked for transposed scales: right by strides, yet not today's",
        (
            Edit(
                SCALE,
                "    if not fp8_utils._use_aiter_bpreshuffle_gfx95:\n"
                "        return False\n",
                "",
            ),
        ),
        _OF_EACH,
        _with(_ONE_EACH, platform=Platform.GFX95_OLD),
    ),
    Mutant(
        "projection not looked at",
        "Triton's GEMM is given transposed scales, which it reads slower",
        (Edit(SCALE, "    if projection is None:\n", "    if True:\n"),),
        PRODUCERS | {"gather"},
        TRITON,
    ),
    Mutant(
        "another's projection",
        "S8 asks about q_b_proj",
        (CALLS["S8"].with_projection("self.q_b_proj"),),
        frozenset({"S8"}),
        tuple(c for c in TRITON if c.chain is Chain.CORE),
    ),
    Mutant(
        "projection not found",
        "the attention layer has another name for it",
        (Edit(SCALE, '"fused_qkv_a_proj_with_mqa", None)', '"qkv_a_proj", None)'),),
        _MIXED | {"gather"},
        TRITON,
    ),
    Mutant(
        "switch 0 ignored",
        "transposed scales although switched off",
        (Edit(SCALE, '_MODE != "0"', "True"),),
        _OF_EACH,
        _with(_ONE_EACH, switch=Switch.OFF),
    ),
    Mutant(
        "check mode never raises",
        "differences are counted and not reported",
        (Edit(SCALE, "if differs.any():", "if False:"),),
        frozenset({"S8"}),
        _IGNORED,
    ),
    Mutant(
        "check mode names no call",
        "it raises without naming the place",
        (Edit(SCALE, "places: {site}, read by", "places: read by"),),
        frozenset({"S8"}),
        _IGNORED,
    ),
    Mutant(
        "check mode compares a scale with itself",
        "the reference is what was just written",
        (
            Edit(
                SCALE,
                "setattr(scale, _REFERENCE, (site, reference))",
                "setattr(scale, _REFERENCE, (site, scale))",
            ),
        ),
        frozenset({"S8"}),
        _IGNORED,
    ),
    Mutant(
        "empty scale refused",
        "its strides differ from those of a full one",
        (
            Edit(
                SCALE,
                "for_ck = scale if scale.is_contiguous() else",
                "for_ck = scale if len(scale) and scale.is_contiguous() else",
            ),
        ),
        frozenset({"S4", "S6", "S7", "S8"}),
        tuple(Case(chain, 0) for chain in (Chain.MLA, Chain.MHA, Chain.CORE)),
    ),
    Mutant(
        "no probe for transpose_scale",
        "a TypeError with an AITER before 3041",
        (Edit(SCALE, '"transpose_scale" in inspect.signature(quant).parameters',
              "True"),),
        frozenset({"S8"}),
        _with(_CORE, variant=Variant.NO_FLATTEN),
    ),
    Mutant(
        "dead guard",
        "S8's branch is never taken (SGLang 39410)",
        (
            Edit(
                MLA,
                "elif self.o_proj.weight.dtype == torch.float8_e4m3fn:",
                "elif hasattr(self.o_proj, 'no_such_scale'):",
            ),
        ),
        frozenset({"S8"}),
        _CORE,
    ),
)  # fmt: skip
