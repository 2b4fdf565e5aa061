# mypy: disable-error-code="no-untyped-def, untyped-decorator"
# Triton's language has types of its own.
"""Triton kernels: norms, a small-M GEMM with its quantization, and a fill.

Their names say which role a trace counts them for (``profiling``).
"""

from __future__ import annotations

import triton
import triton.language as tl

_LARGEST = tl.constexpr(448.0)
_SMALLEST = tl.constexpr(1e-10)


@triton.jit
def rms_norm_kernel(
    x, added, weight, out, total, width, stride, epsilon,
    ADDS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row, at = tl.program_id(0), tl.arange(0, BLOCK)
    inside = at < width
    values = tl.load(x + row * stride + at, mask=inside, other=0.0).to(tl.float32)
    if ADDS:
        more = tl.load(added + row * stride + at, mask=inside, other=0.0)
        values += more.to(tl.float32)
        tl.store(total + row * stride + at, values.to(tl.bfloat16), mask=inside)
    factor = tl.rsqrt(tl.sum(values * values, 0) / width + epsilon)
    scaled = values * factor * tl.load(weight + at, mask=inside, other=0.0)
    tl.store(out + row * stride + at, scaled.to(tl.bfloat16), mask=inside)


@triton.jit
def two_rms_norms_kernel(
    q, q_weight, q_out, q_width, q_stride, q_out_stride,
    k, k_weight, k_out, k_width, k_stride, k_out_stride,
    q_epsilon, k_epsilon, BLOCK: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0)
    if tl.program_id(1) == 0:
        _norm_row(
            q + row * q_stride, q_weight, q_out + row * q_out_stride, q_width,
            q_epsilon, BLOCK,
        )  # fmt: skip
    else:
        _norm_row(
            k + row * k_stride, k_weight, k_out + row * k_out_stride, k_width,
            k_epsilon, BLOCK,
        )  # fmt: skip


@triton.jit
def _norm_row(x, weight, out, width, epsilon, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    inside = at < width
    values = tl.load(x + at, mask=inside, other=0.0).to(tl.float32)
    factor = tl.rsqrt(tl.sum(values * values, 0) / width + epsilon)
    scaled = values * factor * tl.load(weight + at, mask=inside, other=0.0)
    tl.store(out + at, scaled.to(tl.bfloat16), mask=inside)


@triton.jit
def small_m_gemm_kernel(
    x, w, w_scale, out, m, n, k, stride,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, GROUP: tl.constexpr,
):  # fmt: skip
    first = tl.program_id(0) * COLUMNS
    rows, columns, at = tl.arange(0, ROWS), tl.arange(0, COLUMNS), tl.arange(0, GROUP)
    sums = tl.zeros((ROWS, COLUMNS), dtype=tl.float32)
    for group in range(k // GROUP):
        inner = group * GROUP + at
        values = tl.load(
            x + rows[:, None] * stride + inner[None, :],
            mask=rows[:, None] < m,
            other=0.0,
        ).to(tl.float32)
        scale = tl.maximum(tl.max(tl.abs(values), 1), _SMALLEST) / _LARGEST
        q = (values / scale[:, None]).to(w.dtype.element_ty)
        block = tl.load(w + (first + columns)[None, :] * k + inner[:, None])
        part = tl.dot(q, block, out_dtype=tl.float32)
        by = tl.load(w_scale + (first // GROUP) * (k // GROUP) + group)
        sums += part * scale[:, None] * by
    tl.store(
        out + rows[:, None] * n + (first + columns)[None, :],
        sums.to(tl.bfloat16),
        mask=rows[:, None] < m,
    )


@triton.jit
def attention_fill_kernel(out, values, count, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = at < count
    tl.store(out + at, tl.load(values + at, mask=inside), mask=inside)
