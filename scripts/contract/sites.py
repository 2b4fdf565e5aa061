"""The places where activation scales are made and read, as data.

A site is known by what it is: the kernel it calls, the function it stands in and,
between look-alikes in one function, what it asks of the kernel and which projection
its result feeds. Line numbers, file names and releases come and go; these stay.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import Enum

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
"""AITER's fused quantizations and their parameters, in order, 3041's included."""

UNKNOWN_SITE = "?"


class Role(Enum):
    PRODUCER = "producer"
    CONSUMER = "consumer"


class State(Enum):
    """What the source says about a site; UNKNOWN wherever it does not say."""

    ROW_MAJOR = "row-major"
    MARKED = "transposed and marked"
    UNMARKED = "transposed and unmarked"
    COPIED = "row-major, copied explicitly"
    COPIES_ALL = "copies every scale"
    COPIES_UNMARKED = "copies unmarked scales only"
    ASSUMES = "assumes transposed"
    GONE = "gone"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Site:
    """One catalogue entry. A condition of None is not looked at.

    ``residual`` and ``unquantized`` say whether the call gives a residual and whether
    it asks for the unquantized output as well; ``feeds`` names the projection that
    the function itself hands the result to.
    """

    id: str
    kernel: str
    function: str | None
    projections: tuple[str, ...]
    meaning: str
    residual: bool | None = None
    unquantized: bool | None = None
    feeds: str | None = None

    @property
    def role(self) -> Role:
        return role_of(self.kernel)

    @property
    def expected(self) -> State:
        """The state in which the optimization is wholly adopted."""
        return State.MARKED if self.role is Role.PRODUCER else State.COPIES_UNMARKED

    def fits(
        self,
        kernel: str,
        functions: Collection[str],
        residual: bool | None,
        unquantized: bool | None,
        fed: Collection[str],
    ) -> bool:
        """Whether a call is this site's; None says what its source leaves open."""
        return (
            kernel == self.kernel
            and self.function in functions
            and self.residual in (None, residual)
            and self.unquantized in (None, unquantized)
            and (self.feeds is None or self.feeds in fed)
        )


def role_of(kernel: str) -> Role:
    """Whether the kernel makes scales or reads them."""
    return Role.PRODUCER if kernel in PRODUCERS else Role.CONSUMER


_INPUT, _MLA, _MHA, _CORE = (
    "prepare_attn",
    "forward_absorb_prepare",
    "forward_normal_prepare",
    "forward_absorb_core",
)
_QKV_A, _Q_B = ("fused_qkv_a_proj_with_mqa", "indexer.wk"), ("q_b_proj",)
_KV_B, _O = ("kv_b_proj",), ("o_proj",)

CATALOGUE: tuple[Site, ...] = (
    Site("S1", RMS, _INPUT, _QKV_A, "layer input, no residual yet", residual=False),
    Site("S2", RMS, _INPUT, _QKV_A, "layer input, residual added", residual=True),
    Site("S3", RMS, _MLA, _Q_B, "q latent, bf16 for the indexer", unquantized=True),
    Site("S4", RMS, _MLA, _Q_B, "q latent", unquantized=False),
    Site(
        "S5",
        RMS,
        _MHA,
        _Q_B,
        "q latent of prefill, bf16 for the indexer",
        unquantized=True,
        feeds="q_b_proj",
    ),
    Site(
        "S6",
        RMS,
        _MHA,
        _Q_B,
        "q latent of prefill",
        unquantized=False,
        feeds="q_b_proj",
    ),
    Site("S7", RMS, _MHA, _KV_B, "kv latent of prefill", feeds="kv_b_proj"),
    Site("S8", FLATTEN, _CORE, _O, "attention output, flattened", feeds="o_proj"),
    Site("C", GEMM, None, (), "block-FP8 linear: picks CK's or Triton's GEMM"),
)
"""All sites, in the order in which a census lists them."""
