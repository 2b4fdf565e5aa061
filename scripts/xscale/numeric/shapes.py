"""Model sizes, chosen by which GEMM their projections use."""

from __future__ import annotations

from dataclasses import dataclass, replace

from xscale.numeric.chains import Chain


@dataclass(frozen=True)
class Shape:
    """A model's sizes on one rank; the tree itself selects the GEMM.

    ``qkv_a`` and ``wk`` are output columns; those of the other projections are derived.
    ``chains`` limits the shape to some chains; None means all.
    """

    name: str
    hidden: int
    q_lora: int
    kv_lora: int
    heads: int
    nope: int
    rope: int
    v: int
    qkv_a: int
    wk: int = 128
    chains: tuple[Chain, ...] | None = None

    def serves(self, chain: Chain) -> bool:
        return self.chains is None or chain in self.chains


_LATENT = (Chain.MLA, Chain.MLA_NSA, Chain.MHA, Chain.MHA_NSA)
_INPUTS = (
    Chain.INPUT,
    Chain.INPUT_NSA,
    Chain.RESIDUAL,
    Chain.RESIDUAL_NSA,
    Chain.GATHER_PYNCCL,
)

SMALL = Shape("small", 512, 384, 256, 4, 64, 64, 128, 704)
TUNED_INPUT = Shape("tuned input", 7168, 384, 256, 4, 64, 64, 128, 512, chains=_INPUTS)
TUNED_LATENT = Shape(
    "tuned latent", 512, 256, 256, 28, 192, 64, 64, 576, chains=_LATENT
)
TUNED_OUTPUT = Shape(
    "tuned output", 7168, 256, 256, 2, 64, 64, 128, 576, chains=(Chain.CORE,)
)
GLM51 = Shape("GLM-5.1 TP=8", 6144, 2048, 512, 8, 192, 64, 256, 2624)
DEEPSEEK_V3 = Shape("DeepSeek-V3 TP=8", 7168, 1536, 512, 16, 128, 64, 128, 2112)

GLM51_TP4 = Shape("GLM-5.1 TP=4", 6144, 2048, 512, 16, 192, 64, 256, 2624)
DEEPSEEK_V32 = replace(DEEPSEEK_V3, name="DeepSeek-V3.2 TP=8")
"""DeepSeek-V3's sizes, with an indexer. Both are for measurements alone."""

MODELS = (GLM51, DEEPSEEK_V3)

SHAPES = (SMALL, TUNED_INPUT, TUNED_LATENT, TUNED_OUTPUT, *MODELS)
"""The tuned shapes are the smallest ones that upstream's table gives to Triton's
GEMM."""

_KNOWING = (Chain.INPUT_NSA, Chain.RESIDUAL_NSA)
_OF_KV_B = (Chain.MHA, Chain.MHA_NSA)
_OF_O = (Chain.CORE,)

APART = (
    Shape(
        "qkv_a alone tuned", 7168, 384, 256, 4, 64, 64, 128, 512, chains=_KNOWING
    ),
    Shape(
        "wk alone tuned", 7168, 384, 256, 4, 64, 64, 128, 704, wk=512, chains=_KNOWING
    ),
    Shape("q_b alone tuned", 512, 256, 256, 28, 192, 64, 128, 576, chains=_LATENT),
    Shape("kv_b alone tuned", 512, 256, 256, 28, 192, 128, 64, 640, chains=_LATENT),
    Shape("o_proj alone tuned", 7168, 256, 256, 2, 64, 64, 128, 576, chains=_OF_O),
    Shape(
        "all tuned but qkv_a",
        7168, 256, 1024, 16, 384, 64, 128, 704, wk=512, chains=_KNOWING,
    ),
    Shape(
        "all tuned but wk",
        7168, 256, 1024, 16, 384, 64, 128, 2112, wk=128, chains=_KNOWING,
    ),
    Shape(
        "all tuned but q_b",
        7168, 256, 1024, 16, 384, 128, 128, 2112, wk=512, chains=_LATENT,
    ),
    Shape(
        "all tuned but kv_b",
        7168, 256, 512, 16, 384, 64, 128, 2112, wk=512, chains=_OF_KV_B,
    ),
    Shape(
        "all tuned but o_proj",
        7168, 256, 256, 8, 768, 128, 128, 2112, wk=512, chains=_OF_O,
    ),
)  # fmt: skip
"""Shapes in which one projection uses another GEMM than all others, in both directions.

A producer that asks about any projection that does not read its scale gets the wrong
answer for one of these shapes.
"""
