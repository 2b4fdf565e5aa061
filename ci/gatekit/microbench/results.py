"""What a run leaves behind: figures per shape, M, arm and mode."""

from __future__ import annotations

import msgspec

from overlaykit.cli import Result


class Time(msgspec.Struct, frozen=True):
    """Microseconds per layer; and to the other arms' time in the same round, median."""

    median_us: float
    minimum_us: float
    to_pristine: float
    to_bound: float


class Row(msgspec.Struct, frozen=True):
    """An arm in a mode, "eager" or "replay". Counts are of kernels, per layer.

    ``attentions`` counts calls of the attention module that the profiler saw; a
    replay calls none.
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


class Cell(msgspec.Struct, frozen=True):
    """A shape at an M. ``bpreshuffle`` and ``triton`` are GEMMs per layer by route.

    ``differing`` names the arms, with their mode, that have an output whose bits are
    not those of the pristine pin, run eagerly. ``noise`` is how far from 1 one arm's
    replay is to a second capture of itself.
    """

    shape: str
    m: int
    layers: int
    bpreshuffle: int
    triton: int
    differing: tuple[str, ...]
    rows: tuple[Row, ...]
    noise: float | None = None

    def row(self, arm: str, mode: str) -> Row:
        return next(r for r in self.rows if (r.arm, r.mode) == (arm, mode))


class Claim(msgspec.Struct, frozen=True):
    """Something that has to be seen. A control that does not hold makes all void."""

    what: str
    holds: bool
    found: str
    control: bool = False


class Bench(Result, frozen=True, kw_only=True):
    """A run. ``tree`` is SGLang's release; ``gemm`` what was run where CK's is called.

    ``arms`` says what each arm is.
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
