"""Upstream's newest convention: every producer's scale has strides (1, M), no marks.

CK's GEMM gets the tensor itself and reads its bytes; Triton's GEMM gets an
``as_strided`` view, which copies nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def quant_pretransposed_scale(
    quant: Callable[..., Any], projection: Any, *args: Any, **kwargs: Any
) -> Any:
    """Request the transposed scale, and give it matching strides."""
    outputs = quant(*args, transpose_scale=True, **kwargs)
    nested = isinstance(outputs[0], tuple)
    q, scale = outputs[0] if nested else outputs
    scale = _strided(scale)
    return ((q, scale), *outputs[1:]) if nested else (q, scale)


def qkv_a_projection(qkv_latent_func: Any) -> None:
    """Unused: only the series' design needs to know a scale's consumer."""


def x_scale_for_gemm(x_scale: Any, bpreshuffle: bool) -> Any:
    """The same bytes for both GEMMs."""
    return x_scale if bpreshuffle else _strided(x_scale)


def _strided(scale: Any) -> Any:
    return scale.as_strided(scale.shape, (1, scale.shape[0]))
