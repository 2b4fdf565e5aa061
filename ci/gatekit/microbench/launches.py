"""Kernels with one launch each, in place of AITER's HIP kernels, which need an AMD GPU.

A projection that gets bf16 quantizes by itself, and a norm that is not fused with a
quantization is a launch of its own. These replace both, and the GEMM of few rows that
quantizes by itself. The quantization alone is AITER's own Triton kernel.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import triton

from gatekit.microbench.kernels import (
    attention_fill_kernel,
    rms_norm_kernel,
    small_m_gemm_kernel,
    two_rms_norms_kernel,
)
from xscale.numeric.cases import GROUP

_TOGETHER = 8 * GROUP
"""Columns that a program quantizes, if they divide a row."""


def rms_norm(x: Any, weight: Any, epsilon: float, residual: Any = None) -> Any:
    """RMSNorm of ``x``; of the sum with ``residual``, and that sum, if it is given."""
    out = torch.empty_like(x)
    total = out if residual is None else torch.empty_like(x)
    added = x if residual is None else residual
    rows, width = x.shape
    rms_norm_kernel[(rows,)](
        x, added, weight, out, total, width, x.stride(0), epsilon,
        residual is not None, triton.next_power_of_2(width), num_warps=8,
    )  # fmt: skip
    return out if residual is None else (out, total)


def two_norms(*args: Any, **kwargs: Any) -> Any:
    """Both forms of AITER's bf16 ``fused_qk_rmsnorm``: returning and in place."""
    if args:
        q, q_weight, q_epsilon, k, k_weight, k_epsilon = args
        outputs = torch.empty_like(q), torch.empty_like(k)
    else:
        outputs = kwargs["q_out_quantized"], kwargs["k_out"]
        q, q_weight, q_epsilon = (kwargs[f"q{n}"] for n in ("", "_weight", "_epsilon"))
        k, k_weight, k_epsilon = (kwargs[f"k{n}"] for n in ("", "_weight", "_epsilon"))
    block = triton.next_power_of_2(max(q.shape[1], k.shape[1]))
    two_rms_norms_kernel[(q.shape[0], 2)](
        q, q_weight, outputs[0], q.shape[1], q.stride(0), outputs[0].stride(0),
        k, k_weight, outputs[1], k.shape[1], k.stride(0), outputs[1].stride(0),
        q_epsilon, k_epsilon, block,
    )  # fmt: skip
    return outputs if args else None


def quantization(flatten: Callable[..., Any]) -> Callable[..., Any]:
    """A quantization in groups of 128, by AITER's kernel that also flattens."""

    def quant(x: Any, quant_dtype: Any, transpose_scale: bool = False) -> Any:
        rows, width = x.shape
        parts = x.view(rows, -1, math.gcd(width, _TOGETHER))
        named = {"transpose_scale": True} if transpose_scale else {}
        q, scale = flatten(parts, group_size=GROUP, dtype_quant=quant_dtype, **named)
        # As HIP's kernel returns it: the bytes behind a contiguous view.
        return q, scale if scale.is_contiguous() else scale.t().view(scale.shape)

    return quant


def small_m_gemm(x: Any, weight: Any, w_scale: Any) -> Any:
    """bf16 times block FP8, which quantizes its rows in the same launch."""
    (m, k), n = x.shape, weight.shape[0]
    out = torch.empty(m, n, dtype=torch.bfloat16, device=x.device)
    small_m_gemm_kernel[(n // 32,)](
        x, weight, w_scale, out, m, n, k, x.stride(0),
        triton.next_power_of_2(max(16, m)), 32, GROUP, num_warps=4,
    )  # fmt: skip
    return out


def fill(out: Any, values: Any) -> None:
    """Write the values, as the kernel before the quantization does."""
    count = out.numel()
    attention_fill_kernel[(triton.cdiv(count, 4096),)](out, values, count, 4096)
