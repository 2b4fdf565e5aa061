"""The lower bound: no relayout at all.

Producers write row-major, as they do by default. CK's GEMM gets another tensor,
prepared in its layout before timing, which the linear layer attached to the scale.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def quant_pretransposed_scale(
    quant: Callable[..., Any], projection: Any, *args: Any, **kwargs: Any
) -> Any:
    """The quantization in its default form."""
    return quant(*args, **kwargs)


def qkv_a_projection(qkv_latent_func: Any) -> None:
    """Unused: only the series' design needs to know a scale's consumer."""


def x_scale_for_gemm(x_scale: Any, bpreshuffle: bool) -> Any:
    """The prepared scale for CK, the row-major one for Triton."""
    return x_scale.laid_out if bpreshuffle else x_scale
