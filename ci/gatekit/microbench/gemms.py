"""The GEMMs that end each link of the chain, and which one stands in for CK's.

CK's bpreshuffle GEMM reads the scale's bytes in (groups, M) order whatever its strides
say. Where it cannot be had, AITER's Triton GEMM takes its place and reads those very
bytes: an adapter gives it strides that say where they lie, which copies nothing.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from overlaykit.core.errors import EnvironmentFailure, Finding
from xscale.numeric.cases import GROUP
from xscale.numeric.gemms import COLUMNS, Gemms, Reads, portable_config
from xscale.numeric.producers import DOUBLE, TRITON_GEMM, Kernels

CK = "CK's gemm_a8w8_blockscale_bpreshuffle"
TRITON = "AITER's Triton gemm_a8w8_blockscale, reading the (groups, M) bytes in place"
_TILES = (16, 16)
_TILES_WANTED = 128
"""About as many as a data-center GPU has multiprocessors."""
_TOLERANCE = 0.02
"""Of the largest output: bf16 has 8 bits, and sums are made in another order."""


class ChainGemms:
    """What the consumer imports. ``calls`` counts by route: (CK's, Triton's)."""

    def __init__(self, kernels: Kernels, compiled: bool) -> None:
        """Raises EnvironmentFailure where this AITER has no Triton GEMM."""
        if TRITON_GEMM not in kernels.functions:
            finding = Finding(
                "gemm_a8w8_blockscale is in none of AITER's Triton modules",
                next_step="give another AITER with --aiter",
            )
            raise EnvironmentFailure("the chain has no GEMM to run", (finding,))
        self._triton = kernels.real(TRITON_GEMM)
        self._ck = _ck() if compiled else None
        self._fills = compiled
        self._span = nullcontext if compiled else _span
        if not compiled:
            _ignore_hints()
        self.calls = [0, 0]

    @property
    def stand_in(self) -> str:
        """Which GEMM is run where the tree calls CK's."""
        return CK if self._ck is not None else TRITON

    def bpreshuffle(
        self, q: Any, w: Any, x_scale: Any, w_scale: Any, dtype: Any, **_: Any
    ) -> Any:
        """What the tree calls as CK's ``gemm_a8w8_blockscale_bpreshuffle``."""
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
        with self._span():
            config = portable_config(q.shape[0])
            if self._fills:
                config = _filling(config, q.shape[0], *w.shape)
            return self._triton(q, w, x_scale, w_scale, dtype=dtype, config=config)

    def check(self, device: str) -> None:
        """Both routes against an exact reference, on a scale whose values all differ.

        Raises EnvironmentFailure where one is off: its times would mean nothing.
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
    """The configuration with larger tiles where there are rows for them, and the loop
    over K split until there are tiles for a whole GPU.

    CK's GEMM does not wait on the latency of one tile's loop, so neither must what
    stands in for it: else what is timed is how long its scales take to arrive.
    """
    if m >= 2 * GROUP:
        config |= {"BLOCK_SIZE_M": 128, "BLOCK_SIZE_N": 128, "num_warps": 8}
    tiles = -(-m // config["BLOCK_SIZE_M"]) * -(-n // config["BLOCK_SIZE_N"])
    groups, split = k // GROUP, 1
    while tiles * split < _TILES_WANTED and groups % (2 * split) == 0:
        split *= 2
    return config | {"NUM_KSPLIT": split}


def _ck() -> Callable[..., Any] | None:
    """CK's GEMM and its weight shuffle, of the AITER that is installed, on ROCm."""
    if torch.version.hip is None:
        return None
    try:
        gemm = importlib.import_module("aiter").gemm_a8w8_blockscale_bpreshuffle
        shuffle = importlib.import_module("aiter.ops.shuffle").shuffle_weight
    except (ImportError, AttributeError, OSError, RuntimeError):
        # Said in the result: what stood in is part of it.
        return None

    def run(q: Any, w: Any, x_scale: Any, w_scale: Any, dtype: Any) -> Any:
        # The weight in CK's tiles is made at its first use, which is never timed.
        if not hasattr(w, "preshuffled"):
            w.preshuffled = shuffle(w, _TILES)
        return gemm(q, w.preshuffled, x_scale, w_scale, dtype=dtype)

    return run


def _span() -> AbstractContextManager[Any]:
    """What Triton's interpreter does is no work of the tree's."""
    span: AbstractContextManager[Any] = torch.profiler.record_function(DOUBLE)
    return span


def _ignore_hints() -> None:
    """AITER's GEMM tells the compiler that an unused stride is positive; it is 0, and
    the interpreter takes the hint for an assertion."""
    from triton.runtime.interpreter import InterpreterBuilder

    InterpreterBuilder.create_assume = lambda *_: None
