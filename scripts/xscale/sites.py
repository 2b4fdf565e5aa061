"""The places where activation scales are written and read, as data.

A site is identified by the kernel it calls, the function it is in and, among similar
calls in one function, its arguments and the projection that its result feeds. Line
numbers, file names and releases change; these do not.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

FIRST_WITH_FLATTEN = "v0.1.16"
"""The first AITER whose flatten can write its scale transposed."""

MARKER = "_aiter_bpreshuffle_layout"
"""Attribute of a scale tensor: its bytes already lie in (groups, M) order."""

RMS = "fused_rms_fp8_group_quant"
FLATTEN = "fused_flatten_fp8_group_quant"
GEMM = "gemm_a8w8_blockscale_bpreshuffle"

PRODUCERS: Mapping[str, tuple[str, ...]] = {
    RMS: (
        "inp1",
        "inp1_weight",
        "inp1_epsilon",
        "inp2",
        "inp2_weight",
        "inp2_epsilon",
        "group_size",
        "dtype_quant",
        "res1",
        "output_unquantized_inp1",
        "transpose_scale",
    ),
    FLATTEN: ("x", "group_size", "dtype_quant", "transpose_scale"),
}
"""AITER's fused quantizations and their parameters in order, including that of 3041."""

PARAMETER = "transpose_scale"
"""The parameter of every quantization that selects the layout. Any other call with this
parameter makes a scale too."""

CLAMP = "fused_clamp_act_mul"
ALL_REDUCE = "tensor_model_parallel_fused_allreduce_rmsnorm_quant_per_group"

QUANTIZATIONS: Mapping[str, tuple[str, ...]] = {
    **PRODUCERS,
    CLAMP: (
        "inp",
        "out",
        "scale",
        "swiglu_limit",
        "activation",
        "weights",
        "dtype_quant",
        PARAMETER,
    ),
    ALL_REDUCE: (
        "input_",
        "residual_inp_",
        "weight_",
        "eps",
        "group_size",
        "emit_bf16",
        PARAMETER,
    ),
}
"""All functions that are known to make a scale: those that the series changes, and
others. The clamp makes one only if it is given ``dtype_quant``. The all-reduce is
SGLang's function around AITER's kernel."""

UNKNOWN_SITE = "?"


class Role(Enum):
    PRODUCER = "producer"
    CONSUMER = "consumer"


class SiteState(Enum):
    """What the source says about a site; UNKNOWN if it leaves it open.

    UNMARKED bytes may have strides that are not honest; HONEST and COPIED ones have
    honest strides. A consumer that NEEDS_HONEST copies by the strides for CK's GEMM and
    assumes transposed bytes for Triton's: right only if both agree.
    """

    ROW_MAJOR = "row-major"
    MARKED = "transposed and marked"
    UNMARKED = "transposed and unmarked"
    HONEST = "transposed, told by its strides"
    COPIED = "row-major, copied explicitly"
    COPIES_ALL = "copies every scale"
    COPIES_UNMARKED = "copies unmarked scales only"
    NEEDS_HONEST = "needs honest strides"
    ASSUMES = "assumes transposed"
    MISREAD = "misread by the GEMM beside it"
    GONE = "gone"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Site:
    """One catalogue entry. A condition of None is not checked.

    ``function`` and ``also`` name the function that the site is in. A function matches
    if its name has all words of one of them and the name of its class has the word
    ``owner``. ``residual`` and ``unquantized`` say whether the call passes a residual
    and requests the unquantized output. ``feeds`` names the projection that receives
    the result, in the function or in a caller.
    """

    id: str
    kernel: str
    function: str | None
    projections: tuple[str, ...]
    meaning: str
    residual: bool | None = None
    unquantized: bool | None = None
    feeds: str | None = None
    owner: str | None = None
    also: tuple[str, ...] = ()

    @property
    def role(self) -> Role:
        return role_of(self.kernel)

    @property
    def expected(self) -> SiteState:
        """The state that means complete adoption."""
        return (
            SiteState.MARKED
            if self.role is Role.PRODUCER
            else SiteState.COPIES_UNMARKED
        )

    def fits(
        self,
        kernel: str,
        scopes: Sequence[str],
        residual: bool | None,
        unquantized: bool | None,
        fed: Collection[str],
    ) -> bool:
        """Whether a call may be this site; None means that its source leaves it open.

        ``scopes`` are the scopes of the call and of the callers that its result was
        followed to. The callers count only together with the projection that they feed.
        """
        return (
            kernel == self.kernel
            and any(self._is_in(s) for s in (scopes if self.feeds else scopes[:1]))
            and (None in (self.residual, residual) or self.residual == residual)
            and (
                None in (self.unquantized, unquantized)
                or self.unquantized == unquantized
            )
            and (self.feeds is None or any(_has_words(by, self.feeds) for by in fed))
        )

    def _is_in(self, scope: str) -> bool:
        *classes, function = scope.split(".")
        if function == self.function:
            return True
        return any(
            _has_words(function, name) for name in (self.function, *self.also) if name
        ) and (self.owner is None or any(self.owner in _words(c) for c in classes))


def _has_words(name: str, words: str) -> bool:
    return set(words.split("_")) <= set(name.split("_"))


def _words(camel: str) -> list[str]:
    return re.findall("[A-Z]+(?![a-z])|[A-Z][a-z0-9]*|[a-z0-9]+", camel)


def role_of(kernel: str) -> Role:
    """Whether the kernel writes scales or reads them."""
    return Role.CONSUMER if kernel == GEMM else Role.PRODUCER


def without_parameter(kernel: str) -> str:
    """The next step for an AITER whose kernel cannot write its scale transposed."""
    if kernel == FLATTEN:
        return f"install AITER {FIRST_WITH_FLATTEN} or newer, which has ROCm/aiter#3041"
    return "install a newer AITER"


_INPUT, _MLA, _MHA, _CORE = (
    "prepare_attn",
    "forward_absorb_prepare",
    "forward_normal_prepare",
    "forward_absorb_core",
)
_QKV_A, _Q_B = ("fused_qkv_a_proj_with_mqa", "indexer.wk"), ("q_b_proj",)
_KV_B, _O = ("kv_b_proj",), ("o_proj",)
# The name since the communicator reads the residual for its input norm.
_READ = ("update_and_read_residual",)

CATALOGUE: tuple[Site, ...] = (
    Site(
        "S1",
        RMS,
        _INPUT,
        _QKV_A,
        "layer input, no residual yet",
        residual=False,
        also=_READ,
    ),
    Site(
        "S2",
        RMS,
        _INPUT,
        _QKV_A,
        "layer input, residual added",
        residual=True,
        also=_READ,
    ),
    Site(
        "S3",
        RMS,
        _MLA,
        _Q_B,
        "q latent, bf16 for the indexer",
        unquantized=True,
        feeds="q_b_proj",
        owner="MLA",
    ),
    Site(
        "S4",
        RMS,
        _MLA,
        _Q_B,
        "q latent",
        unquantized=False,
        feeds="q_b_proj",
        owner="MLA",
    ),
    Site(
        "S5",
        RMS,
        _MHA,
        _Q_B,
        "q latent of prefill, bf16 for the indexer",
        unquantized=True,
        feeds="q_b_proj",
        owner="MHA",
    ),
    Site(
        "S6",
        RMS,
        _MHA,
        _Q_B,
        "q latent of prefill",
        unquantized=False,
        feeds="q_b_proj",
        owner="MHA",
    ),
    Site(
        "S7",
        RMS,
        _MHA,
        _KV_B,
        "kv latent of prefill",
        feeds="kv_b_proj",
        owner="MHA",
    ),
    Site(
        "S8",
        FLATTEN,
        _CORE,
        _O,
        "attention output, flattened",
        feeds="o_proj",
        owner="MLA",
    ),
    Site("C", GEMM, None, (), "block-FP8 linear: picks CK's or Triton's GEMM"),
)
"""All sites, in the order in which a census lists them."""

GROUP_SIZE = 128
"""The only group size whose scales these GEMMs read."""

NATIVE_LINEAR = "Fp8LinearMethod"
"""The quantization method of native block FP8."""
