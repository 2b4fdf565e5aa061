"""The chains of a scale: from a producer to its consumers."""

from __future__ import annotations

from enum import Enum

GROUP = 128
"""Columns that share one scale, and the block size of the GEMMs."""


class Chain(Enum):
    """From a producer to its consumers; NSA ones also request the unquantized
    output."""

    INPUT = "input"
    INPUT_NSA = "input, NSA"
    RESIDUAL = "input with residual"
    RESIDUAL_NSA = "input with residual, NSA"
    MLA = "absorbed q"
    MLA_NSA = "absorbed q, NSA"
    MHA = "prefill q and kv"
    MHA_NSA = "prefill q and kv, NSA"
    CORE = "attention output"
    PREFILL_NSA = "input with residual, NSA, prefill"
    STREAMS_NSA = "input with residual, NSA, two streams"
    GATHER_C10D = "scattered gather, c10d"
    GATHER_PYNCCL = "scattered gather, pynccl"
    GATHER_C10D_NSA = "scattered gather, NSA, c10d"
    GATHER_PYNCCL_NSA = "scattered gather, NSA, pynccl"
    INDEXER = "indexer's dequantization"

    @property
    def nsa(self) -> bool:
        return "_NSA" in self.name

    @property
    def gathers(self) -> bool:
        return self.name.startswith("GATHER")

    @property
    def over_c10d(self) -> bool:
        """Whether the gather refuses strides; otherwise it moves raw bytes."""
        return "C10D" in self.name

    @property
    def sites(self) -> dict[str, str]:
        """The site whose scale each consumer reads."""
        return _SITES[self]

    @property
    def first(self) -> frozenset[str]:
        """The projection that each site's producer must be given: the first reader if
        there are two."""
        firsts = {site: name for name, site in reversed(self.sites.items())}
        return frozenset(firsts.values())

    @property
    def knows_projection(self) -> bool:
        """Whether a producer knows the first reader of its scale.

        Communicators find it through the attention layer. Some have no attention layer
        here, to check that scales written for CK's GEMM are right for Triton's as well.
        """
        return self not in (Chain.INPUT, Chain.RESIDUAL, Chain.INDEXER)


_INPUT_OF = ("qkv_a", "wk")
_SITES: dict[Chain, dict[str, str]] = {
    Chain.INPUT: dict.fromkeys(_INPUT_OF, "S1"),
    Chain.INPUT_NSA: dict.fromkeys(_INPUT_OF, "S1"),
    Chain.RESIDUAL: dict.fromkeys(_INPUT_OF, "S2"),
    Chain.RESIDUAL_NSA: dict.fromkeys(_INPUT_OF, "S2"),
    Chain.MLA: {"q_b": "S4"},
    Chain.MLA_NSA: {"q_b": "S3"},
    Chain.MHA: {"q_b": "S6", "kv_b": "S7"},
    Chain.MHA_NSA: {"q_b": "S5", "kv_b": "S7"},
    Chain.CORE: {"o_proj": "S8"},
    Chain.PREFILL_NSA: dict.fromkeys(_INPUT_OF, "S2"),
    Chain.STREAMS_NSA: dict.fromkeys(_INPUT_OF, "S2"),
    Chain.GATHER_C10D: dict.fromkeys(_INPUT_OF, "gather"),
    Chain.GATHER_PYNCCL: dict.fromkeys(_INPUT_OF, "gather"),
    Chain.GATHER_C10D_NSA: dict.fromkeys(_INPUT_OF, "gather"),
    Chain.GATHER_PYNCCL_NSA: dict.fromkeys(_INPUT_OF, "gather"),
    Chain.INDEXER: {"head gate": "indexer"},
}
