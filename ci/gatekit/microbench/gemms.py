"""The GEMMs at the end of each link of the chain, and the stand-in for CK's.

CK's bpreshuffle GEMM reads the scale's bytes in (groups, M) order, whatever the
strides. If it is not available, AITER's Triton GEMM is the stand-in and reads the same
bytes: an adapter passes matching strides, which copies nothing.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import torch

from overlaykit.core.errors import EnvironmentFailure, Finding
from xscale.numeric.cases import GROUP
from xscale.numeric.gemms import COLUMNS, Gemms, Reads, portable_config
from xscale.numeric.producers import TRITON_GEMM, Kernels

CK = "CK's gemm_a8w8_blockscale_bpreshuffle"
TRITON = "AITER's Triton gemm_a8w8_blockscale, reading the (groups, M) bytes in place"
_TILES = (16, 16)
_TILES_WANTED = 128
"""About as many as a data-center GPU has multiprocessors."""
_TOLERANCE = 0.02
"""Relative to the largest output: bf16 has 8 bits, and the order of sums differs."""


class ChainGemms:
    """The GEMMs that the consumer imports. ``calls`` counts them: (CK's, Triton's)."""

    def __init__(self, kernels: Kernels, compiled: bool) -> None:
        """Raises EnvironmentFailure if this AITER has no Triton GEMM."""
        if TRITON_GEMM not in kernels.functions:
            finding = Finding(
                "gemm_a8w8_blockscale was not found in AITER's Triton modules",
                next_step="give another AITER with --aiter",
            )
            raise EnvironmentFailure("the chain has no GEMM to run", (finding,))
        self._triton = kernels.real(TRITON_GEMM)
        self._ck = _ck() if compiled else None
        self._fills = compiled
        if not compiled:
            _ignore_hints()
        self.calls = [0, 0]

    @property
    def stand_in(self) -> str:
        """The GEMM that runs when the tree calls CK's."""
        return CK if self._ck is not None else TRITON

    def bpreshuffle(
        self, q: Any, w: Any, x_scale: Any, w_scale: Any, dtype: Any, **_: Any
    ) -> Any:
        """Called by the tree as CK's ``gemm_a8w8_blockscale_bpreshuffle``."""
        self.calls[0] += 1
        if self._ck is not None:
            return self._ck(q, w, x_scale, w_scale, dtype=dtype)
        m, k = q.shape
        as_ck_reads = x_scale.as_strided((m, k // GROUP), (1, m))
        return self._run(q, w, as_ck_reads, w_scale, dtype)

    def triton(
        self, q: Any, w: Any, x_scale: Any, w_scale: Any, dtype: Any, **_: Any
    ) -> Any:
        """AITER's Triton ``gemm_a8w8_blockscale``."""
        self.calls[1] += 1
        return self._run(q, w, x_scale, w_scale, dtype)

    def _run(self, q: Any, w: Any, x_scale: Any, w_scale: Any, dtype: Any) -> Any:
        config = portable_config(q.shape[0])
        if self._fills:
            config = _filling(config, q.shape[0], *w.shape)
        return self._triton(q, w, x_scale, w_scale, dtype=dtype, config=config)

    def check(self, device: str) -> None:
        """Compare both routes with an exact reference, on a scale with distinct values.

        Raises EnvironmentFailure if one is wrong: its times would be meaningless.
        """
        generator = torch.Generator().manual_seed(1)

        def made(*shape: int) -> Any:
            return torch.rand(shape, generator=generator)

        m, n, k = 3, 2 * GROUP, 4 * GROUP
        q, w = (made(rows, k).to(torch.float8_e4m3fn).to(device) for rows in (m, n))
        x_scale, w_scale = (
            made(rows, k // GROUP).to(device) for rows in (m, n // GROUP)
        )
        bytes_first = x_scale.t().contiguous().view(m, k // GROUP)
        reference = Gemms(Reads(), None)
        for name, scale, run, exact in (
            (self.stand_in, bytes_first, self.bpreshuffle, reference.bpreshuffle),
            ("AITER's Triton GEMM", x_scale, self.triton, reference.triton),
        ):
            given = (q, w, scale, w_scale, torch.bfloat16)
            got, want = (f(*given)[:, :COLUMNS].float() for f in (run, exact))
            off = float((got - want).abs().max() / want.abs().max())
            if not off <= _TOLERANCE:
                finding = Finding(
                    f"{name} is off by {off:.3f} of the largest output",
                    expected=f"at most {_TOLERANCE}",
                    next_step="give another AITER with --aiter",
                )
                raise EnvironmentFailure("a GEMM of the chain is wrong", (finding,))


def _filling(config: dict[str, Any], m: int, n: int, k: int) -> dict[str, Any]:
    """The configuration with larger tiles for many rows, and with the loop over K split
    until the tiles fill a GPU.

    CK's GEMM is not bound by the latency of one tile's loop, so the stand-in must not
    be either: otherwise the time would be that of loading its scales.
    """
    if m >= 2 * GROUP:
        config |= {"BLOCK_SIZE_M": 128, "BLOCK_SIZE_N": 128, "num_warps": 8}
    tiles = -(-m // config["BLOCK_SIZE_M"]) * -(-n // config["BLOCK_SIZE_N"])
    groups, split = k // GROUP, 1
    while tiles * split < _TILES_WANTED and groups % (2 * split) == 0:
        split *= 2
    return config | {"NUM_KSPLIT": split}


def _ck() -> Callable[..., Any] | None:
    """CK's GEMM with its weight shuffle, from the installed AITER, on ROCm."""
    if torch.version.hip is None:
        return None
    try:
        gemm = importlib.import_module("aiter").gemm_a8w8_blockscale_bpreshuffle
        shuffle = importlib.import_module("aiter.ops.shuffle").shuffle_weight
    except (ImportError, AttributeError, OSError, RuntimeError):
        # The result names the GEMM that ran.
        return None

    def run(q: Any, w: Any, x_scale: Any, w_scale: Any, dtype: Any) -> Any:
        # The weight is shuffled at its first use, which is never timed.
        if not hasattr(w, "preshuffled"):
            w.preshuffled = shuffle(w, _TILES)
        return gemm(q, w.preshuffled, x_scale, w_scale, dtype=dtype)

    return run


def _ignore_hints() -> None:
    """AITER's GEMM has a compiler hint that an unused stride is positive. The stride is
    0, and the interpreter treats the hint as an assertion."""
    from triton.runtime.interpreter import InterpreterBuilder

    InterpreterBuilder.create_assume = lambda *_: None
