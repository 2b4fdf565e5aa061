"""The pull request's own design: a mark on the scale, a copy back for Triton.

Its inverse supports one layout and raises on the other, which AITER's merged flatten
produces. Here both are copied once, so that the design's cost can be measured.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

_MARKER = "_aiter_bpreshuffle_layout"


def quant_pretransposed_scale(
    quant: Callable[..., Any], projection: Any, *args: Any, **kwargs: Any
) -> Any:
    """Request the transposed scale and mark it."""
    outputs = quant(*args, transpose_scale=True, **kwargs)
    scale = outputs[0][1] if isinstance(outputs[0], tuple) else outputs[1]
    setattr(scale, _MARKER, True)
    return outputs


def qkv_a_projection(qkv_latent_func: Any) -> None:
    """Unused: only the series' design needs to know a scale's consumer."""


def x_scale_for_gemm(x_scale: Any, bpreshuffle: bool) -> Any:
    """Marked: unchanged for CK, copied to row-major for Triton. Unmarked: as
    released."""
    if getattr(x_scale, _MARKER, False):
        if bpreshuffle:
            return x_scale
        if x_scale.is_contiguous():
            m, groups = x_scale.shape
            x_scale = x_scale.view(groups, m).t()
        return x_scale.contiguous()
    if bpreshuffle:
        return x_scale.transpose(-1, -2).contiguous().view(*x_scale.shape)
    return x_scale
