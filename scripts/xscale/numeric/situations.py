"""What a revived producer's output meets behind the guard, as data.

A guard that was shut for releases lets code grow behind it that was never run. Each
situation is one that the chains do not reach: it needs a cached prefix, an adapter,
another format beside, or another GEMM.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType

from xscale.numeric.cases import Case, Chain

SMALL_M_MODULE = "sglang.kernels.ops.gemm.smallm_fp8_blockscale_gfx950"
FUSED_ROPE_MODULE = (
    "sglang.srt.models.deepseek_common.attention_forward_methods"
    ".forward_mla_fused_rope_rocm"
)
LORA_MODULE = "sglang.srt.lora.deepseek_mla_correction"
BEHIND_MODULES = (SMALL_M_MODULE, FUSED_ROPE_MODULE, LORA_MODULE)
"""Modules that run too, besides those of the chains."""
_ROWS = 3


class Behind(Enum):
    """The situations."""

    PREFIX = "a prefill with a cached prefix"
    LORA = "an adapter of kv_b_proj"
    BF16_WK = "an indexer whose wk is bf16"
    BF16_PROJECTION = "a projection that is bf16 beside others in block FP8"
    FUSED_ROPE = "the fused decode with RoPE"
    SUBCLASS = "a subclass of the attention layer"
    SMALL_M = "a GEMM of few rows that quantizes by itself"


_CHAINS = MappingProxyType(
    {
        Behind.PREFIX: Chain.MHA,
        Behind.LORA: Chain.CORE,
        Behind.BF16_WK: Chain.RESIDUAL_NSA,
        Behind.BF16_PROJECTION: Chain.MLA,
        Behind.FUSED_ROPE: Chain.RESIDUAL_NSA,
        Behind.SUBCLASS: Chain.MLA,
        Behind.SMALL_M: Chain.MLA,
    }
)


NEEDS = MappingProxyType(
    {
        Behind.LORA: LORA_MODULE,
        Behind.FUSED_ROPE: FUSED_ROPE_MODULE,
        Behind.SMALL_M: SMALL_M_MODULE,
    }
)
"""The module without which a release does not have the situation."""


@dataclass(frozen=True)
class BehindCase(Case):
    """One situation; a :class:`Case`, so that it travels with the others."""

    situation: Behind = Behind.PREFIX

    def __str__(self) -> str:
        return self.situation.value


def behind_cases() -> tuple[BehindCase, ...]:
    return tuple(
        BehindCase(chain, _ROWS, situation=situation)
        for situation, chain in _CHAINS.items()
    )
