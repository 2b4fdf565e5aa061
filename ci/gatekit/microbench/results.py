"""The figures of a run, per shape, M, arm and mode."""

from __future__ import annotations

import msgspec

from overlaykit.cli import Result

GEMMS = 4
"""Projections of a layer that read an activation scale: qkv_a, wk, q_b and o_proj."""


class Time(msgspec.Struct, frozen=True):
    """Microseconds per layer; median ratios to other arms' times in the same round."""

    median_us: float
    minimum_us: float
    to_pristine: float
    to_bound: float | None = None


class Row(msgspec.Struct, frozen=True):
    """An arm in a mode, "eager" or "replay". Counts are kernels per layer; ``norms``
    are those that are not fused with a quantization.

    ``attentions`` counts the calls of the attention module in the trace; a replay has
    none.
    """

    arm: str
    mode: str
    copies: float
    quantizations: float
    gemms: float
    others: float
    attentions: int
    traced: int
    trace: str
    time: Time | None = None
    norms: float = 0


class Cell(msgspec.Struct, frozen=True):
    """A shape at an M. ``bpreshuffle`` and ``triton`` are GEMMs per layer by route.

    ``differing`` names the arms and modes with an output that differs in any bit from
    the pristine pin, run eagerly; of a revived release, in any bit from the same arm,
    run eagerly, or by more than rounding from the pristine one. ``noise`` is the
    distance from 1 of the ratio between two captures of one arm.
    """

    shape: str
    m: int
    layers: int
    bpreshuffle: int
    triton: int
    differing: tuple[str, ...]
    rows: tuple[Row, ...]
    noise: float | None = None

    @property
    def small_m(self) -> int:
        """GEMMs per layer of the release that quantize their few rows by themselves."""
        return GEMMS - self.bpreshuffle - self.triton

    def row(self, arm: str, mode: str) -> Row:
        return next(r for r in self.rows if (r.arm, r.mode) == (arm, mode))


class Claim(msgspec.Struct, frozen=True):
    """A claim about the figures. If a control does not hold, all claims are void."""

    what: str
    holds: bool
    found: str
    control: bool = False


class Bench(Result, frozen=True, kw_only=True):
    """A run. ``tree`` is SGLang's release; ``gemm`` is the GEMM that ran in place of
    CK's; ``arms`` describes each arm.
    """

    aiter: str
    ran_with: dict[str, str]
    gemm: str
    command: str
    rounds: int
    arms: dict[str, str]
    cells: tuple[Cell, ...]
    claims: tuple[Claim, ...]
    seconds: float
