"""The matrix, as data: what is run, on what shapes, with which AITER, on what chip."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import combinations, product

GROUP = 128
"""Columns that share one scale, and the block size of the GEMMs."""


class Chain(Enum):
    """A producer to its consumers; NSA ones also ask for the unquantized output."""

    INPUT = "input"
    INPUT_NSA = "input, NSA"
    RESIDUAL = "input with residual"
    RESIDUAL_NSA = "input with residual, NSA"
    MLA = "absorbed q"
    MLA_NSA = "absorbed q, NSA"
    MHA = "prefill q and kv"
    MHA_NSA = "prefill q and kv, NSA"
    CORE = "attention output"
    GATHER_C10D = "scattered gather, c10d"
    GATHER_PYNCCL = "scattered gather, pynccl"
    INDEXER = "indexer's dequantization"

    @property
    def nsa(self) -> bool:
        return self.name.endswith("_NSA")

    @property
    def gathers(self) -> bool:
        return self.name.startswith("GATHER")

    @property
    def sites(self) -> dict[str, str]:
        """The site whose scale each consumer reads."""
        return _SITES[self]

    @property
    def knows_projection(self) -> bool:
        """Whether a producer can tell what reads its scale first.

        Communicators get to it through the attention layer. Some are given none here,
        so that scales written for CK's GEMM are seen to be right for Triton's as well.
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
    Chain.GATHER_C10D: dict.fromkeys(_INPUT_OF, "gather"),
    Chain.GATHER_PYNCCL: dict.fromkeys(_INPUT_OF, "gather"),
    Chain.INDEXER: {"head gate": "indexer"},
}


class Variant(Enum):
    """What AITER's producers return when asked for a transposed scale.

    All but INSTALLED re-present what the real kernels computed. IGNORED is no AITER
    to serve with: it is what a tree's check mode has to notice.
    """

    INSTALLED = "as installed"
    NO_FLATTEN = "flatten without the parameter"
    LYING_FLATTEN = "rms lying, flatten lying"
    HONEST_FLATTEN = "rms lying, flatten honest"
    HONEST = "rms honest, flatten honest"
    IGNORED = "that ignores the flag"


HONOURING = tuple(v for v in Variant if v is not Variant.IGNORED)
"""The variants that a tree has to be right with."""


class Switch(Enum):
    """Values of SGLANG_AITER_PRETRANSPOSED_SCALE."""

    OFF = "0"
    ON = "1"
    CHECK = "check"


class Platform(Enum):
    """What the tree is told it runs on."""

    GFX95 = "gfx95, ROCm 7.2"
    GFX95_OLD = "gfx95, ROCm 7.0"
    GFX942 = "gfx942, ROCm 7.2"

    @property
    def gfx95(self) -> bool:
        return self is not Platform.GFX942

    @property
    def hip(self) -> tuple[int, int, int]:
        return (7, 0, 0) if self is Platform.GFX95_OLD else (7, 2, 0)

    @property
    def bpreshuffle(self) -> bool:
        """Whether CK's bpreshuffle GEMM is used here at all."""
        return self is Platform.GFX95


@dataclass(frozen=True)
class Shape:
    """A model's sizes on one rank; which GEMM serves them the tree itself decides.

    ``chains`` says where the shape is of use, None everywhere.
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
    chains: tuple[Chain, ...] | None = None

    def serves(self, chain: Chain) -> bool:
        return self.chains is None or chain in self.chains


_MLA_AND_MHA = (Chain.MLA, Chain.MLA_NSA, Chain.MHA, Chain.MHA_NSA)
_INPUTS = (
    Chain.INPUT,
    Chain.INPUT_NSA,
    Chain.RESIDUAL,
    Chain.RESIDUAL_NSA,
    Chain.GATHER_PYNCCL,
)

SMALL = Shape("small", 512, 384, 256, 4, 64, 64, 128, 704)
TUNED_INPUT = Shape("tuned input", 7168, 384, 256, 4, 64, 64, 128, 512, _INPUTS)
TUNED_LATENT = Shape(
    "tuned latent", 512, 256, 256, 28, 192, 64, 64, 576, chains=_MLA_AND_MHA
)
TUNED_OUTPUT = Shape(
    "tuned output", 7168, 256, 256, 2, 64, 64, 128, 576, chains=(Chain.CORE,)
)
GLM51 = Shape("GLM-5.1 TP=8", 6144, 2048, 512, 8, 192, 64, 256, 2624)
DEEPSEEK_V3 = Shape("DeepSeek-V3 TP=8", 7168, 1536, 512, 16, 128, 64, 128, 2112)

SHAPES = (SMALL, TUNED_INPUT, TUNED_LATENT, TUNED_OUTPUT, GLM51, DEEPSEEK_V3)
"""The tuned ones are the smallest whose GEMMs upstream's table gives to Triton."""

_ON_TRITON = (
    (Chain.RESIDUAL, TUNED_INPUT),
    (Chain.MLA, TUNED_LATENT),
    (Chain.CORE, TUNED_OUTPUT),
)


@dataclass(frozen=True)
class Case:
    """One run of one chain. ``m`` counts tokens, of each rank where it gathers."""

    chain: Chain
    m: int
    shape: Shape = SMALL
    variant: Variant = Variant.INSTALLED
    switch: Switch = Switch.ON
    platform: Platform = Platform.GFX95

    def __str__(self) -> str:
        return (
            f"{self.chain.value}; M={self.m}; {self.shape.name}; "
            f"AITER {self.variant.value}; switch {self.switch.value}; "
            f"{self.platform.value}"
        )

    @property
    def sites(self) -> frozenset[str]:
        return frozenset(self.chain.sites.values())

    @property
    def tests_check_mode(self) -> bool:
        """Whether the right outcome is the tree's own complaint."""
        return self.variant is Variant.IGNORED and self.switch is Switch.CHECK


def about(
    cases: Iterable[Case], *sites: str, platform: Platform | None = None
) -> tuple[Case, ...]:
    """The cases that say anything of the sites, on one platform if it is given."""
    return tuple(
        case
        for case in cases
        if case.sites & set(sites) and platform in (None, case.platform)
    )


def full_matrix() -> tuple[Case, ...]:
    """Everything with everything: some thousands of cases."""
    rows = (1, 2, 3, 4, 16, 17, 64)
    everything = (
        Case(chain, m, shape, variant, switch, platform)
        for shape, chain in product(SHAPES, Chain)
        if shape.serves(chain)
        for m in (*rows, *_square(shape, chain))
        for platform, switch, variant in product(Platform, Switch, HONOURING)
        if platform.bpreshuffle or variant in (Variant.INSTALLED, Variant.HONEST)
    )
    return (*everything, *_check_mode(), *_no_tokens())


def reduced_matrix() -> tuple[Case, ...]:
    """Small shapes; every pair of values of any two factors occurs, per platform."""
    return (*_reduced(), *_check_mode(), *_no_tokens())


def _check_mode() -> Iterator[Case]:
    """Each producer once, and each GEMM's side of the comparison.

    The first wrong scale ends a run, so that S7, read after S6 or S5, has no case of
    its own. A gather drops what is compared, and the indexer reads no mark.
    """
    chains = [c for c in Chain if not c.gathers and c is not Chain.INDEXER]
    homes = [(chain, SMALL) for chain in chains]
    for chain, shape in (*homes, (Chain.RESIDUAL, TUNED_INPUT)):
        yield Case(chain, 3, shape, Variant.IGNORED, Switch.CHECK)


def _no_tokens() -> Iterator[Case]:
    """What no scale can be judged by; only that it goes no worse than it did.

    AITER's kernels run on empty grids. CK's GEMM fails at M = 0 and its stand-in does
    not: that the same comes to it, empty, is all that can be seen here.
    """
    before = (Chain.INPUT, Chain.RESIDUAL, Chain.GATHER_PYNCCL)
    after = (Chain.MLA, Chain.MHA, Chain.CORE)
    for chain, shape in (*((c, SMALL) for c in before + after), *_ON_TRITON):
        yield Case(chain, 0, shape)
    for chain in after:
        yield Case(chain, 0, SMALL, Variant.HONEST, Switch.CHECK)


def _reduced() -> Iterator[Case]:
    homes = [(chain, SMALL) for chain in Chain]
    homes += [
        (chain, shape)
        for shape in (TUNED_INPUT, TUNED_LATENT, TUNED_OUTPUT)
        for chain in shape.chains or ()
    ]
    # At M = 4 (input, output), 3 (q) and 2 (kv) M is the number of groups as well.
    for home, m, variant, switch in pairwise(
        homes, (3, 2, 17, 4, 1), HONOURING, tuple(Switch)
    ):
        yield Case(*_placed(home, m), variant, switch)
    others = (Platform.GFX95_OLD, Platform.GFX942)
    for home, m, variant, switch, platform in pairwise(
        homes[: len(Chain)],
        (3, 1),
        (Variant.INSTALLED, Variant.HONEST),
        tuple(Switch),
        others,
    ):
        yield Case(*_placed(home, m), variant, switch, platform)


def _placed(home: tuple[Chain, Shape], m: int) -> tuple[Chain, int, Shape]:
    return home[0], m, home[1]


def _square(shape: Shape, chain: Chain) -> tuple[int, ...]:
    """An M that is the number of groups, where the usual ones hold none."""
    width = {
        Chain.CORE: shape.heads * shape.v,
        **dict.fromkeys(_MLA_AND_MHA, shape.q_lora),
    }.get(chain, shape.hidden)
    groups = width // GROUP
    return () if groups in (2, 3, 4, 16) else (groups,)


def pairwise(*factors: Sequence[object]) -> Iterator[tuple]:  # type: ignore[type-arg]
    """Rows that hold every pair of values of any two factors; greedy, deterministic."""
    left = {
        ((i, a), (j, b))
        for i, j in combinations(range(len(factors)), 2)
        for a in range(len(factors[i]))
        for b in range(len(factors[j]))
    }
    while left:
        (i, a), (j, b) = min(left)
        row = {i: a, j: b}
        for k, factor in enumerate(factors):
            if k not in row:
                row[k] = max(
                    range(len(factor)),
                    key=lambda v: (
                        sum(
                            (((o, w), (k, v)) if o < k else ((k, v), (o, w))) in left
                            for o, w in row.items()
                        ),
                        # Else every row that is free to choose would choose alike.
                        (v * 7 + a * 3 + b) % 11,
                    ),
                )
        indices = [row[k] for k in range(len(factors))]
        left -= set(combinations(enumerate(indices), 2))
        yield tuple(factor[v] for factor, v in zip(factors, indices, strict=True))
