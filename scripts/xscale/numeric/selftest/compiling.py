"""The module in ``torch.compile(fullgraph=True)``: no graph break, and the same bits as
eager mode.

It is compared with the release's code: if that does not compile, for instance on a
Python that Dynamo does not support, the case is skipped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

import torch

from xscale.numeric.cases import GROUP, Switch
from xscale.numeric.producers import same_bits
from xscale.numeric.selftest.quantizers import FORMATS, FP8
from xscale.numeric.selftest.subject import PRODUCER, Subject, Wrong, describe, logged

_ROWS, _GROUPS = (3, 17), 2
_N = {"CK": 704, "Triton": 7168}
# Triton's GEMM gets a transposed scale only if the projection is unknown.
_ENDS = (("CK", True), ("Triton", True), ("Triton", False))


def compiled(subject: Subject) -> Iterator[Wrong]:
    """Compile a producer, the tree's own linear and a GEMM in one graph."""
    generator = torch.Generator().manual_seed(0)
    inputs = [
        torch.randn(m, _GROUPS * GROUP, generator=generator).to(subject.device)
        for m in _ROWS
    ]
    quants = {
        "a quantization that takes transpose_scale": _nested,
        "an operator that returns strides (1, M)": _pair,
        "one without the parameter": _older,
    }
    compiles = False
    with (
        logged() as warnings,
        subject.gemms_replaced(bpreshuffle=_ck, triton=_triton, row_major=_triton),
    ):
        for (name, quant), (gemm, known) in product(quants.items(), _ENDS):
            about = f"{name}, {gemm}'s GEMM, projection {'known' if known else 'None'}"
            before = _compiled(_release(quant, gemm), inputs)
            if isinstance(before, Exception):
                continue
            compiles = True
            whole = _whole(subject, quant, gemm, known)
            eager, got = list(map(whole, inputs)), _compiled(whole, inputs)
            if isinstance(got, Exception):
                yield Wrong(
                    "code that compiles in the release does not compile",
                    f"no error: {about}",
                    describe(got),
                )
            elif not all(map(_all_alike, got.outputs, eager)):
                yield Wrong(
                    "compiled code computes other values", f"eager's: {about}", "others"
                )
            elif got.graphs > before.graphs:
                yield Wrong(
                    "compiled code is recompiled where the release's is not",
                    f"{before.graphs} graphs for {_ROWS} rows: {about}",
                    f"{got.graphs}",
                )
    checks = subject.case.switch is Switch.CHECK
    if compiles and subject.case.platform.bpreshuffle and len(warnings) != int(checks):
        yield Wrong(
            "check mode does not warn once that compiled code is not checked",
            f"{int(checks)} warnings that name the switch",
            f"{len(warnings)} of them",
        )


@dataclass
class _Compiled:
    """The outputs of compiled code for each input, and its number of graphs."""

    outputs: list[Any]
    graphs: int


def _compiled(function: Callable[..., Any], inputs: list[Any]) -> Any:
    """The :class:`_Compiled`, or the error."""
    graphs: list[Any] = []

    def keep(graph: Any, _: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    torch._dynamo.reset()
    whole = torch.compile(function, fullgraph=True, backend=keep)
    inputs = [x.clone() for x in inputs]
    for x in inputs:
        # Only rows: with more unknowns, Dynamo's guards can take minutes.
        torch._dynamo.maybe_mark_dynamic(x, 0)
    try:
        return _Compiled(list(map(whole, inputs)), len(graphs))
    except Exception as error:
        return error


def _all_alike(left: Any, right: Any) -> bool:
    return all(
        one.stride() == other.stride() and same_bits(one, other)
        for one, other in zip(left, right, strict=True)
    )


def _weight(gemm: str, device: Any) -> Any:
    return torch.zeros(_N[gemm], _GROUPS * GROUP, device=device, dtype=FP8)


def _whole(
    subject: Subject, quant: Callable[..., Any], gemm: str, known: bool
) -> Callable[..., Any]:
    linear, producer = subject.linear, getattr(subject.module, PRODUCER)
    projection = subject.projection(_N[gemm], _GROUPS * GROUP)
    known_by = projection if known else None

    def whole(x: Any) -> Any:
        outputs = producer(quant, known_by, x, **FORMATS)
        q, scale = outputs[0] if isinstance(outputs[0], tuple) else outputs
        output = linear(
            input=q,
            weight=projection.weight,
            block_size=[GROUP, GROUP],
            weight_scale=projection.weight_scale_inv,
            input_scale=scale,
            bias=None,
        )
        return q, scale, output

    return whole


def _release(quant: Callable[..., Any], gemm: str) -> Callable[..., Any]:
    """The same code in an unpatched tree."""

    def whole(x: Any) -> Any:
        outputs = quant(x, **FORMATS)
        q, scale = outputs[0] if isinstance(outputs[0], tuple) else outputs
        weight = _weight(gemm, x.device)
        if gemm == "Triton":
            return q, scale, _triton(q, weight, scale, None, torch.bfloat16)
        copy = scale.transpose(-1, -2).contiguous().view(*scale.shape)
        return q, scale, _ck(q, weight, copy, None, torch.bfloat16)

    return whole


def _ck(q: Any, w: Any, x_scale: Any, w_scale: Any, dtype: Any) -> Any:
    """Bytes in (G, M) order, behind a contiguous view."""
    m, groups = x_scale.shape
    return _product(q, w, x_scale.view(groups, m).t(), dtype)


def _triton(q: Any, w: Any, x_scale: Any, w_scale: Any, dtype: Any) -> Any:
    return _product(q, w, x_scale, dtype)


def _product(q: Any, w: Any, scale: Any, dtype: Any) -> Any:
    """A result in which any wrong scale shows; it need not be a GEMM."""
    m, groups = scale.shape
    blocks = q.float().view(m, groups, GROUP).abs().sum(-1)
    columns = (blocks * scale).repeat_interleave(w.shape[0] // groups, 1)
    return columns.to(dtype)


def _nested(
    x: Any, group_size: int, dtype_quant: Any, transpose_scale: bool = False
) -> Any:
    """Like AITER's RMSNorm: transposed bytes behind a contiguous (M, G) view."""
    q, scale = _quantized(x, group_size, dtype_quant)
    if transpose_scale:
        scale = scale.t().contiguous().view(scale.shape)
    return (q, scale), x, None, None


def _pair(
    x: Any, group_size: int, dtype_quant: Any, transpose_scale: bool = False
) -> Any:
    """Like AITER's flatten: strides (1, M)."""
    if not transpose_scale:
        return _quantized(x, group_size, dtype_quant)
    return _operator(x, group_size)


def _strided(x: torch.Tensor, group_size: int) -> tuple[torch.Tensor, torch.Tensor]:
    q, scale = _quantized(x, group_size, FP8)
    return q, scale.t().contiguous().t()


def _like(x: torch.Tensor, group_size: int) -> tuple[torch.Tensor, torch.Tensor]:
    m, groups = x.shape[0], x.shape[1] // group_size
    return torch.empty_like(x, dtype=FP8), x.new_empty(groups, m).t()


# An operator, like some of AITER's: Dynamo sets no attribute on its results.
_operator: Any = torch.library.custom_op(
    "scale_module_selftest::strided", _strided, mutates_args=()
)
_operator.register_fake(_like)


def _older(x: Any, group_size: int, dtype_quant: Any) -> Any:
    """Like AITER's flatten before it could transpose."""
    return _quantized(x, group_size, dtype_quant)


def _quantized(x: Any, group_size: int, dtype: Any) -> Any:
    blocks = x.view(x.shape[0], -1, group_size)
    scale = blocks.abs().amax(-1) / torch.finfo(dtype).max
    return (blocks / scale.unsqueeze(-1)).to(dtype).view(x.shape), scale
