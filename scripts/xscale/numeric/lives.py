"""A site's liveness, as data: whether the tree's own code calls its fused kernel."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType

from xscale.numeric.cases import Case, Chain, Platform, Variant
from xscale.numeric.formats import Format

CHAINS = MappingProxyType(
    {
        "S1": (Chain.INPUT_NSA, "qkv_a"),
        "S2": (Chain.RESIDUAL_NSA, "qkv_a"),
        "S3": (Chain.MLA_NSA, "q_b"),
        "S4": (Chain.MLA, "q_b"),
        "S5": (Chain.MHA_NSA, "q_b"),
        "S6": (Chain.MHA, "q_b"),
        "S7": (Chain.MHA, "kv_b"),
        "S8": (Chain.CORE, "o_proj"),
    }
)
"""The chain that runs each site, and the projection that reads its scale."""
_ROWS = 2


class Life(Enum):
    """What a run showed."""

    LIVE = "live"
    DEAD = "dead"
    NOT_RUN = "not run"


@dataclass(frozen=True)
class MissedRead:
    """A line that looked for an attribute which a projection's linear does not have;
    ``has`` are the parameters that it has."""

    path: str
    line: int
    function: str
    name: str
    projection: str
    has: tuple[str, ...]

    def __str__(self) -> str:
        return (
            f"{self.function} reads {self.name}, which {self.projection} does not "
            f"have: it has {', '.join(self.has) or 'nothing'}"
        )


@dataclass(frozen=True)
class LiveState:
    """``path`` and ``line``: of a live site, its call of the kernel; of a dead one, the
    guard that keeps the run from it. ``reason`` says what the guard read, or why the
    site was not run. ``reads`` are the tree's own reads that found nothing.
    """

    site: str
    state: Life
    path: str | None = None
    line: int | None = None
    reason: str = ""
    reads: tuple[MissedRead, ...] = ()

    @property
    def at(self) -> str:
        """The place, as path and line."""
        return f"{self.path}:{self.line}" if self.path else ""


@dataclass(frozen=True)
class LifeCase(Case):
    """One chain, run to see which producers are called; a :class:`Case`, so that it
    travels with the others."""

    def __str__(self) -> str:
        return f"liveness: {self.chain.value}; {self.format}"

    @property
    def asks(self) -> tuple[tuple[str, str], ...]:
        """The sites that this chain answers for, with the projection of each."""
        return tuple(
            (site, projection)
            for site, (chain, projection) in CHAINS.items()
            if chain is self.chain
        )


def life_cases(form: Format, platform: Platform) -> tuple[LifeCase, ...]:
    """A case for each chain, as few rows as show it."""
    chains = dict.fromkeys(chain for chain, _ in CHAINS.values())
    # AITER lacks parameters in some releases; whether it is called does not depend on
    # them.
    honest = Variant.HONEST
    return tuple(
        LifeCase(c, _ROWS, variant=honest, platform=platform, format=form)
        for c in chains
    )


@dataclass(frozen=True)
class LifeResult:
    """The states of a case's sites."""

    case: LifeCase
    states: tuple[LiveState, ...]
