"""The GEMMs at the end of the chains: their inputs, as each of them addresses them.

CK's kernels use only a scale's data pointer, so the stand-in reads exactly that many
floats from there, in (groups, M) order for bpreshuffle. Triton's GEMM reads through the
strides; AITER's own kernel is used if it runs compiled.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from xscale.numeric.cases import GROUP
from xscale.numeric.results import Route
from xscale.numeric.watch import unrecorded

COLUMNS = 256
"""Output columns that a reference computes; a scale affects all of them alike, and the
rest stays zero. AITER's own GEMM computes all columns."""


class OutOfBounds(Exception):
    """A GEMM would read past the end of a scale's storage."""


@dataclass
class Read:
    """The inputs of one consumer; ``seen`` is (M, G) through its own addressing."""

    projection: str
    route: Route
    stand_in: str
    q: Any
    scale: Any
    seen: Any
    output: Any
    marked: bool = False
    mark_known: bool = True


@dataclass
class Reads:
    """All reads of one run. The linear double sets their projection."""

    projection: str = "?"
    marked: bool = False
    mark_known: bool = True
    all: list[Read] = field(default_factory=list)

    def add(self, route: Route, stand_in: str, q: Any, scale: Any, seen: Any) -> Read:
        read = Read(
            self.projection,
            route,
            stand_in,
            q,
            scale,
            seen,
            None,
            self.marked,
            self.mark_known,
        )
        self.all.append(read)
        return read


class Gemms:
    """The GEMM entry points that a consumer imports from AITER."""

    def __init__(self, reads: Reads, triton_gemm: Any) -> None:
        """``triton_gemm`` is AITER's own, or None to use the reference."""
        self._reads, self._triton = reads, triton_gemm

    def bpreshuffle(
        self, q: Any, w: Any, x_scale: Any, w_scale: Any, dtype: Any, **_: Any
    ) -> Any:
        """CK's ``gemm_a8w8_blockscale_bpreshuffle``."""
        groups = q.shape[1] // GROUP

        def seen() -> Any:
            return stored(x_scale, (groups, q.shape[0])).t()

        return self._reference(Route.BPRESHUFFLE, q, w, x_scale, w_scale, dtype, seen)

    def row_major(
        self, q: Any, w: Any, x_scale: Any, w_scale: Any, dtype: Any, **_: Any
    ) -> Any:
        """CK's ``gemm_a8w8_blockscale``."""
        groups = q.shape[1] // GROUP

        def seen() -> Any:
            return stored(x_scale, (q.shape[0], groups))

        return self._reference(Route.CK_ROW_MAJOR, q, w, x_scale, w_scale, dtype, seen)

    def triton(
        self, q: Any, w: Any, x_scale: Any, w_scale: Any, dtype: Any, **_: Any
    ) -> Any:
        """AITER's Triton ``gemm_a8w8_blockscale``."""
        if self._triton is None:
            return self._reference(
                Route.TRITON, q, w, x_scale, w_scale, dtype, lambda: x_scale
            )
        with unrecorded():
            read = self._reads.add(
                Route.TRITON, "AITER's own", q, x_scale, x_scale.clone()
            )
            read.output = self._triton(
                q, w, x_scale, w_scale, dtype=dtype, config=portable_config(q.shape[0])
            )
            return read.output

    def _reference(
        self,
        route: Route,
        q: Any,
        w: Any,
        x_scale: Any,
        w_scale: Any,
        dtype: Any,
        seen: Callable[[], Any],
    ) -> Any:
        """Compute in float64 with one rounding at the end, so that it is
        deterministic."""
        with unrecorded():
            values = seen().clone()
            read = self._reads.add(route, "reference", q, x_scale, values)
            left = dequantized(q, values)
            columns = min(COLUMNS, w.shape[0])
            blocks = w_scale[: -(-columns // GROUP)]
            right = w[:columns].to(torch.float64)
            right *= _spread(blocks.double(), 0, columns)[:, : w.shape[1]]
            read.output = torch.zeros(
                q.shape[0], w.shape[0], dtype=dtype, device=q.device
            )
            read.output[:, :columns] = (left @ right.t()).to(dtype)
            # The caller may add a bias in place.
            return read.output.clone()


def stored(scale: Any, shape: tuple[int, int]) -> Any:
    """The floats from the scale's data pointer on, as ``shape``, ignoring strides."""
    rows, columns = shape
    held = scale.untyped_storage().nbytes() // scale.element_size()
    if scale.storage_offset() + rows * columns > held:
        raise OutOfBounds(
            f"reads {rows * columns} floats at offset {scale.storage_offset()} of a "
            f"storage of {held}: scale of shape {tuple(scale.shape)}"
        )
    return torch.as_strided(scale, shape, (columns, 1), scale.storage_offset())


def dequantized(q: Any, scale: Any) -> Any:
    """(M, K) in float64 from fp8 (M, K) and float32 (M, G)."""
    return q.to(torch.float64) * _spread(scale.double(), q.shape[0], 0)[:, : q.shape[1]]


def _spread(scale: Any, rows: int, blocked_rows: int) -> Any:
    wide = scale.repeat_interleave(GROUP, 1)
    return wide.repeat_interleave(GROUP, 0)[:blocked_rows] if blocked_rows else wide


def portable_config(m: int) -> dict[str, Any]:
    """AITER's own configurations name options that only ROCm's Triton knows."""
    return {
        "BLOCK_SIZE_M": 16 if m <= 16 else 64,
        "BLOCK_SIZE_N": 64,
        "BLOCK_SIZE_K": GROUP,
        "GROUP_SIZE_M": 1,
        "NUM_KSPLIT": 1,
        "num_warps": 4,
        "num_stages": 2,
        "cache_modifier": "",
    }
