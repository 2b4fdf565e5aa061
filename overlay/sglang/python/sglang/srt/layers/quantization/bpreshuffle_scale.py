"""Activation scales written once, in the order the block-FP8 GEMM reads them.

On gfx95 with ROCm >= 7.2, CK's ``gemm_a8w8_blockscale_bpreshuffle`` reads the
activation scale as raw bytes in (groups, M) order, while AITER's Triton GEMM
reads it through its strides. A scale of shape (M, groups) with strides (1, M)
serves both without a copy: its bytes lie as CK wants them and its values are
where the strides say. The fused quantization kernels can write such a scale at
no cost; this module asks them to where CK's GEMM comes next, and hands the
result to either GEMM.

The contract has two sides, and a tensor attribute joins them:

* a producer goes through :func:`quant_pretransposed_scale`, which is the only
  place that sets ``_aiter_bpreshuffle_layout``, always on a scale whose strides
  tell the truth;
* the consumer goes through :func:`x_scale_for_gemm`. A scale without the
  attribute gets exactly the treatment it got before this module existed. If the
  attribute is lost on the way (any view, slice or copy drops it), the strides
  still hold, so the values stay right.

``SGLANG_AITER_PRETRANSPOSED_SCALE`` is read once, at import, and selects the
behaviour for the process: ``1`` (default) as above; ``0`` never asks for a
transposed scale; ``check`` also recomputes each scale row-major and compares all
its bits with what the GEMM is about to read, for the first uses of every shape at
every call site. A comparison waits for the device and raises by value, which
neither graph capture nor ``torch.compile`` allows: what they cover is not checked,
and check mode says so once. To check it, run it without them.

All of this traces under ``torch.compile(fullgraph=True)``.

Eagerly, each layer runs this module's Python in every step. So a projection's GEMM is
looked up once, and the producer keeps the view that CK reads beside the mark. Traced
code does neither: it runs this once, and would be compiled again for every address.
"""

from __future__ import annotations

import inspect
import logging
import os
import sys
import weakref
from collections import Counter
from functools import lru_cache
from typing import Any, Callable

import torch
from torch.compiler import is_compiling

logger = logging.getLogger(__name__)

_SWITCH = "SGLANG_AITER_PRETRANSPOSED_SCALE"
_MARKER = "_aiter_bpreshuffle_layout"
_KEPT_VIEW = "_aiter_bpreshuffle_view"
_REFERENCE = "_aiter_bpreshuffle_reference"
# The block size of the GEMM; other group sizes have other consumers.
_GROUP_SIZE = 128
# Per call site and shape: layers share their call site, one forward pass uses a
# scale dozens of times, and at M = 1 the two orders coincide.
_CHECKED_USES = 64

_uses: Counter[tuple[str, int, int]] = Counter()
# By the id of a projection, with a reference to it, because ids are used again.
_answers: dict[int, tuple[Any, ...]] = {}


def _mode_from_environ() -> str:
    mode = os.environ.get(_SWITCH, "1")
    if mode not in ("0", "1", "check"):
        raise ValueError(f"{_SWITCH}={mode!r}: expected 0, 1 or check")
    return mode


_MODE = _mode_from_environ()


def quant_pretransposed_scale(
    quant: Callable[..., Any], projection: Any, *args: Any, **kwargs: Any
) -> Any:
    """Call an AITER fused quantization so that its scale needs no copy later.

    Returns what ``quant(*args, **kwargs)`` returns, ``((q, scale), ...)`` or
    ``(q, scale)``. Where the consumer is CK's GEMM and the quantization is
    FP8 in groups of 128, the scale, float32 of shape (M, groups), has strides
    (1, M) and is marked for the consumer; elsewhere nothing changes.

    ``projection`` is the linear layer that the result goes to. Its weight, of
    shape (n, k), says which GEMM that is: Triton's, which reads a row-major scale
    faster, gets one. Where it is not known, None, CK's is assumed.
    """
    if not _wants_transposed(quant, projection, kwargs):
        return quant(*args, **kwargs)

    outputs = quant(*args, transpose_scale=True, **kwargs)
    nested = isinstance(outputs[0], tuple)
    q, scale = outputs[0] if nested else outputs
    shape = scale.shape
    strides = 1, shape[0]
    for_ck = scale if scale.is_contiguous() else _contiguous(scale, quant)
    # A view even where the strides are honest already: on what a custom operator
    # returns, Dynamo sets no attribute, and a tensor that keeps its own view leaks.
    scale = scale.as_strided(shape, strides)
    if not is_compiling():
        setattr(scale, _KEPT_VIEW, (for_ck, shape, strides))
    setattr(scale, _MARKER, True)
    if _MODE == "check" and _can_check():
        site = _call_site(quant)
        if _uses[(site, *scale.shape)] < _CHECKED_USES:
            row_major = quant(*args, **kwargs)
            reference = row_major[0][1] if nested else row_major[1]
            setattr(scale, _REFERENCE, (site, reference))
    return ((q, scale), *outputs[1:]) if nested else (q, scale)


def qkv_a_projection(qkv_latent_func: Any) -> Any:
    """The projection in an attention layer's bound ``prepare_qkv_latent``, or None."""
    attention = getattr(qkv_latent_func, "__self__", None)
    return getattr(attention, "fused_qkv_a_proj_with_mqa", None)


def x_scale_for_gemm(x_scale: torch.Tensor, bpreshuffle: bool) -> torch.Tensor:
    """The activation scale as the chosen GEMM reads it; ``x_scale`` is not changed.

    ``bpreshuffle`` is True for CK's GEMM (raw bytes, (groups, M) order) and False
    for the Triton GEMM (strides). A marked scale is never copied. One scale may
    feed several GEMMs of either kind.
    """
    if not getattr(x_scale, _MARKER, False):
        if not bpreshuffle:
            return x_scale
        return x_scale.transpose(-1, -2).contiguous().view(*x_scale.shape)

    kept = None if is_compiling() else getattr(x_scale, _KEPT_VIEW, None)
    # Pickling, copied attributes, set_() and .data = leave a view of other bytes behind.
    if (
        kept is not None
        and kept[0].data_ptr() == x_scale.data_ptr()
        and kept[1] == x_scale.shape
        and kept[2] == x_scale.stride()
    ):
        for_ck = kept[0]
    else:
        for_ck = _view_by_strides(x_scale)
    for_gemm = for_ck if bpreshuffle else x_scale
    if hasattr(x_scale, _REFERENCE):
        _check_use(x_scale, for_gemm, bpreshuffle)
    return for_gemm


def _view_by_strides(x_scale: torch.Tensor) -> torch.Tensor:
    """A marked scale's bytes as CK reads them; raises if its strides are not (1, M)."""
    transposed = x_scale.t()
    if not transposed.is_contiguous():
        raise RuntimeError(
            f"activation scale of shape {tuple(x_scale.shape)} is marked {_MARKER} but "
            f"has strides {x_scale.stride()}, expected (1, {x_scale.shape[0]}): it was "
            "marked outside bpreshuffle_scale.quant_pretransposed_scale"
        )
    return transposed.view(*x_scale.shape)


def _consumer_reads_transposed(projection: Any) -> bool:
    # Imported late: fp8_utils, which owns the predicates, imports this module.
    from sglang.srt.layers.quantization import fp8_utils

    if not fp8_utils._use_aiter_bpreshuffle_gfx95:
        return False
    if projection is None:
        return True
    n, k = projection.weight.shape
    return not fp8_utils.use_aiter_triton_gemm_w8a8_tuned_gfx950(n, k)


def _wants_transposed(
    quant: Callable[..., Any], projection: Any, kwargs: dict[str, Any]
) -> bool:
    return (
        _MODE != "0"
        and kwargs.get("group_size") == _GROUP_SIZE
        and kwargs.get("dtype_quant") == torch.float8_e4m3fn
        and _both_can(quant, projection)
    )


def _both_can(quant: Callable[..., Any], projection: Any) -> bool:
    """Whether the GEMM after ``projection`` reads transposed scales and ``quant``
    writes them.

    Looked up once per projection: its weight keeps its shape, reloaded or replaced, and
    one function quantizes its input. Were a shape ever wrong, it would cost time and no
    value: the consumer looks at its own weight in every call.
    """
    if projection is None or is_compiling():
        return _consumer_reads_transposed(projection) and _takes_transpose_scale(quant)
    known = _answers.get(id(projection))
    if known is None or known[0]() is not projection or known[1] is not quant:
        known = _look_up(quant, projection)
    return known[2]


def _look_up(quant: Callable[..., Any], projection: Any) -> tuple[Any, ...]:
    key = id(projection)
    alive = weakref.ref(projection, lambda _: _answers.pop(key, None))
    both = _consumer_reads_transposed(projection) and _probed(quant)
    _answers[key] = alive, quant, both
    return _answers[key]


# Dynamo calls the two functions marked so while it traces and keeps their answers:
# it can trace neither a signature nor a log message.
@torch.compiler.assume_constant_result
def _takes_transpose_scale(quant: Callable[..., Any]) -> bool:
    """Whether the installed AITER's ``quant`` can write a transposed scale."""
    return _probed(quant)


@lru_cache(maxsize=None)
def _probed(quant: Callable[..., Any]) -> bool:
    if "transpose_scale" in inspect.signature(quant).parameters:
        return True
    logger.warning(
        "AITER's %s has no transpose_scale parameter: its scale stays row-major and "
        "is copied before each GEMM. An AITER with ROCm/aiter#3041 avoids the copy.",
        getattr(quant, "__name__", quant),
    )
    return False


def _contiguous(scale: torch.Tensor, quant: Callable[..., Any]) -> torch.Tensor:
    """The bytes of a scale with strides (1, M), behind a contiguous (M, groups) view.

    AITER releases return transposed bytes in either form; neither is copied.
    """
    m, groups = scale.shape
    if scale.stride() == (1, m):
        return scale.as_strided((m, groups), (groups, 1))
    raise RuntimeError(
        f"AITER's {getattr(quant, '__name__', quant)} returned a scale of shape "
        f"{tuple(scale.shape)} with strides {scale.stride()} for transpose_scale=True; "
        f"set {_SWITCH}=0 to run without pre-transposed scales"
    )


def _call_site(quant: Callable[..., Any]) -> str:
    caller = sys._getframe(2)
    return (
        f"{getattr(quant, '__name__', quant)} called by {caller.f_code.co_name} at "
        f"{caller.f_code.co_filename}:{caller.f_lineno}"
    )


def _can_check() -> bool:
    """Whether a comparison may run here; says once where it may not."""
    if torch.compiler.is_compiling():
        return _unchecked("in code compiled by torch.compile")
    # PyTorch built without a GPU has no capture state to ask for: it raises.
    if torch.cuda.is_initialized() and torch.cuda.is_current_stream_capturing():
        return _unchecked("in a captured graph")
    return True


@torch.compiler.assume_constant_result
def _unchecked(where: str) -> bool:
    return _said_unchecked(where)


@lru_cache(maxsize=None)
def _said_unchecked(where: str) -> bool:
    logger.warning(
        "%s=check does not check activation scales %s; run eagerly to check them",
        _SWITCH,
        where,
    )
    return False


def _check_use(
    x_scale: torch.Tensor, for_gemm: torch.Tensor, bpreshuffle: bool
) -> None:
    if not _can_check():
        return
    site, reference = getattr(x_scale, _REFERENCE)
    m, groups = x_scale.shape
    _uses[(site, m, groups)] += 1
    if _uses[(site, m, groups)] > _CHECKED_USES:
        return
    seen = for_gemm.view(groups, m).t() if bpreshuffle else for_gemm
    # Bits, not values: padding rows may hold NaN, which is unequal to itself.
    differs = seen.view(torch.int32) != reference.view(torch.int32)
    if differs.any():
        wrong = int(differs.sum())
        raise RuntimeError(
            f"pre-transposed activation scale is wrong at {wrong} of {seen.numel()} "
            f"places: {site}, read by the "
            f"{'bpreshuffle' if bpreshuffle else 'Triton'} GEMM; "
            f"set {_SWITCH}=0 to run without pre-transposed scales and report this"
        )
