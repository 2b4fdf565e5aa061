"""The matrix as data: chains, shapes, variants of AITER, switch values and
platforms."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import combinations, product

from xscale.numeric.chains import GROUP, Chain
from xscale.numeric.formats import NATIVE_BLOCK_FP8, Format
from xscale.numeric.shapes import (
    APART,
    DEEPSEEK_V3,
    DEEPSEEK_V32,
    GLM51,
    GLM51_TP4,
    MODELS,
    SHAPES,
    SMALL,
    TUNED_INPUT,
    TUNED_LATENT,
    TUNED_OUTPUT,
    Shape,
)

__all__ = [
    "APART",
    "BPRESHUFFLE",
    "DEEPSEEK_V3",
    "DEEPSEEK_V32",
    "GLM51",
    "GLM51_TP4",
    "GROUP",
    "HONOURING",
    "MODELS",
    "SHAPES",
    "SMALL",
    "TRITON",
    "TUNED_INPUT",
    "TUNED_LATENT",
    "TUNED_OUTPUT",
    "Case",
    "Chain",
    "Platform",
    "Shape",
    "Switch",
    "Variant",
    "about",
    "full_matrix",
    "pairwise",
    "reduced_matrix",
]


class Variant(Enum):
    """The layouts that AITER's producers return for a transposed scale.

    All except INSTALLED change the layout of what the real kernels computed. IGNORED is
    not usable: a tree's check mode must detect it.
    """

    INSTALLED = "as installed"
    NO_FLATTEN = "flatten without the parameter"
    LYING_FLATTEN = "rms lying, flatten lying"
    HONEST_FLATTEN = "rms lying, flatten honest"
    HONEST = "rms honest, flatten honest"
    IGNORED = "that ignores the flag"


HONOURING = tuple(v for v in Variant if v is not Variant.IGNORED)
"""The variants that a tree must be right with."""


class Switch(Enum):
    """Values of SGLANG_AITER_PRETRANSPOSED_SCALE."""

    OFF = "0"
    ON = "1"
    CHECK = "check"


class Platform(Enum):
    """The platform that the tree sees."""

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


_TWICE = (
    Chain.PREFILL_NSA,
    Chain.STREAMS_NSA,
    Chain.GATHER_C10D_NSA,
    Chain.GATHER_PYNCCL_NSA,
)
"""Other paths of a chain above; they are not combined with everything."""
_PAIRED = tuple(chain for chain in Chain if chain not in _TWICE)

_ON_TRITON = (
    (Chain.RESIDUAL, TUNED_INPUT),
    (Chain.MLA, TUNED_LATENT),
    (Chain.CORE, TUNED_OUTPUT),
)


@dataclass(frozen=True)
class Case:
    """One run of one chain. ``m`` is the number of tokens, per rank if it gathers."""

    chain: Chain
    m: int
    shape: Shape = SMALL
    variant: Variant = Variant.INSTALLED
    switch: Switch = Switch.ON
    platform: Platform = Platform.GFX95
    format: Format = NATIVE_BLOCK_FP8

    def __str__(self) -> str:
        text = (
            f"{self.chain.value}; M={self.m}; {self.shape.name}; "
            f"AITER {self.variant.value}; switch {self.switch.value}; "
            f"{self.platform.value}"
        )
        return text if self.format == NATIVE_BLOCK_FP8 else f"{text}; {self.format}"

    @property
    def sites(self) -> frozenset[str]:
        return frozenset(self.chain.sites.values())

    @property
    def tests_check_mode(self) -> bool:
        """Whether the right result is an error of the tree's check mode."""
        return self.variant is Variant.IGNORED and self.switch is Switch.CHECK


BPRESHUFFLE = tuple(Case(chain, 3) for chain in Chain)
TRITON = tuple(
    Case(chain, 3, shape)
    for shape in (TUNED_INPUT, TUNED_LATENT, TUNED_OUTPUT)
    for chain in shape.chains or ()
)
"""Every site once on each route, in a few seconds."""


def about(
    cases: Iterable[Case], *sites: str, platform: Platform | None = None
) -> tuple[Case, ...]:
    """The cases that involve the sites, on one platform if it is given."""
    return tuple(
        case
        for case in cases
        if case.sites & set(sites) and platform in (None, case.platform)
    )


def full_matrix() -> tuple[Case, ...]:
    """All combinations: some thousands of cases."""
    rows = (1, 2, 3, 4, 16, 17, 64)
    everything = (
        Case(chain, m, shape, variant, switch, platform)
        for shape, chain in product(SHAPES, Chain)
        if shape.serves(chain) and not (chain in _TWICE and shape in MODELS)
        for m in (*rows, *_square(shape, chain))
        for platform, switch, variant in product(Platform, Switch, HONOURING)
        if platform.bpreshuffle or variant in (Variant.INSTALLED, Variant.HONEST)
    )
    two = (Variant.INSTALLED, Variant.HONEST)
    more = (*_apart((2, 3, 16), two, tuple(Switch)), *_gathers())
    return (*dict.fromkeys((*everything, *more)), *_check_mode(), *_no_tokens())


def reduced_matrix() -> tuple[Case, ...]:
    """Small shapes; every pair of values of any two factors occurs on each platform."""
    apart = _apart((3,), (Variant.INSTALLED,), (Switch.ON,))
    once = (*_reduced(), *apart, *_gathers(), *_input_paths())
    return (*dict.fromkeys(once), *_check_mode(), *_no_tokens())


def _apart(
    rows: tuple[int, ...], variants: tuple[Variant, ...], switches: tuple[Switch, ...]
) -> Iterator[Case]:
    """Cases that show whether each producer asks about the projection that reads its
    scale."""
    for shape in APART:
        for chain, m, variant, switch in product(
            shape.chains or (), rows, variants, switches
        ):
            yield Case(chain, m, shape, variant, switch)


def _gathers() -> Iterator[Case]:
    """Pairs and triples over each transport, transposed; M = 4 is also the number of
    groups."""
    for chain in Chain:
        if chain.gathers:
            yield from (Case(chain, m) for m in (3, 4))


def _input_paths() -> Iterator[Case]:
    """The paths from the input to the indexer, transposed and not."""
    for chain in (Chain.PREFILL_NSA, Chain.STREAMS_NSA):
        yield from (Case(chain, 3, switch=s) for s in (Switch.ON, Switch.OFF))


def _check_mode() -> Iterator[Case]:
    """Each producer once, and each GEMM's side of the comparison.

    The first wrong scale ends a run, so S7, which is read after S6 or S5, has no
    separate case. A gather drops the reference, and the indexer reads no mark.
    """
    chains = [c for c in _PAIRED if not c.gathers and c is not Chain.INDEXER]
    homes = [(chain, SMALL) for chain in chains]
    for chain, shape in (*homes, (Chain.RESIDUAL, TUNED_INPUT)):
        yield Case(chain, 3, shape, Variant.IGNORED, Switch.CHECK)


def _no_tokens() -> Iterator[Case]:
    """Cases without scales, which show only that nothing gets worse.

    AITER's kernels run on empty grids. CK's GEMM fails at M = 0 and its stand-in does
    not; here only its empty inputs can be compared.
    """
    before = (Chain.INPUT, Chain.RESIDUAL, Chain.GATHER_PYNCCL)
    after = (Chain.MLA, Chain.MHA, Chain.CORE)
    for chain, shape in (*((c, SMALL) for c in before + after), *_ON_TRITON):
        yield Case(chain, 0, shape)
    for chain in after:
        yield Case(chain, 0, SMALL, Variant.HONEST, Switch.CHECK)


def _reduced() -> Iterator[Case]:
    homes = [(chain, SMALL) for chain in _PAIRED]
    homes += [
        (chain, shape)
        for shape in (TUNED_INPUT, TUNED_LATENT, TUNED_OUTPUT)
        for chain in shape.chains or ()
    ]
    # M = 4 (input, output), 3 (q) and 2 (kv) are also the numbers of groups.
    for home, m, variant, switch in pairwise(
        homes, (3, 2, 17, 4, 1), HONOURING, tuple(Switch)
    ):
        yield Case(*_placed(home, m), variant, switch)
    others = (Platform.GFX95_OLD, Platform.GFX942)
    for home, m, variant, switch, platform in pairwise(
        homes[: len(_PAIRED)],
        (3, 1),
        (Variant.INSTALLED, Variant.HONEST),
        tuple(Switch),
        others,
    ):
        yield Case(*_placed(home, m), variant, switch, platform)


def _placed(home: tuple[Chain, Shape], m: int) -> tuple[Chain, int, Shape]:
    return home[0], m, home[1]


def _square(shape: Shape, chain: Chain) -> tuple[int, ...]:
    """An M equal to the number of groups, if it is not among the usual ones."""
    width = {
        Chain.CORE: shape.heads * shape.v,
        **dict.fromkeys(TUNED_LATENT.chains or (), shape.q_lora),
    }.get(chain, shape.hidden)
    groups = width // GROUP
    return () if groups in (2, 3, 4, 16) else (groups,)


def pairwise(*factors: Sequence[object]) -> Iterator[tuple]:  # type: ignore[type-arg]
    """Rows that contain every pair of values of any two factors; greedy,
    deterministic."""
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
                        # Otherwise every free choice would be the same.
                        (v * 7 + a * 3 + b) % 11,
                    ),
                )
        indices = [row[k] for k in range(len(factors))]
        left -= set(combinations(enumerate(indices), 2))
        yield tuple(factor[v] for factor, v in zip(factors, indices, strict=True))
