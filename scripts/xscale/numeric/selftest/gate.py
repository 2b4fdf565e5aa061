"""Which scales are requested transposed and marked, and which are not."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from itertools import product
from typing import Any
from unittest import mock

import torch

from xscale.numeric.cases import GROUP, Switch
from xscale.numeric.results import Route
from xscale.numeric.selftest.quantizers import (
    FORMATS,
    FP8,
    LAYOUTS,
    PADDED,
    SHAPES,
    SIZES,
    Quantizer,
    same,
    scales,
)
from xscale.numeric.selftest.subject import (
    PRODUCER,
    Subject,
    Wrong,
    describe,
    logged,
    marked,
)

# The fp8 type of gfx94x is among the others: no GEMM of gfx95 reads it.
_DTYPES = (FP8, torch.float8_e4m3fnuz, torch.float8_e5m2, torch.float8_e5m2fnuz,
           torch.int8, torch.uint8, torch.bfloat16, None)  # fmt: skip
_GROUPS = (GROUP, 1, 32, 64, 127, 129, 256, None)


def gate(subject: Subject) -> Iterator[Wrong]:
    """Test what the producer requests from its quantization, and what it returns."""
    here = subject.case.platform.bpreshuffle and subject.case.switch is not Switch.OFF
    # All of them at once, because a module may keep what it found for each.
    for projection, ck in list(_projections(subject)):
        for dtype, group in _formats_for(projection):
            asks = here and ck and dtype == FP8 and group == GROUP
            formats = {"dtype_quant": dtype, "group_size": group}
            named = {n: v for n, v in formats.items() if v is not None}
            for takes_flag in (True, False):
                quantizer = Quantizer(
                    scales(3, 2, subject.device), takes_flag=takes_flag
                )
                yield from _check_produced(
                    subject, quantizer, projection, named, asks and takes_flag
                )
    for shape, layout, nested in product(SHAPES, LAYOUTS, (True, False)):
        quantizer = Quantizer(
            scales(*shape, subject.device), layout=layout, nested=nested
        )
        yield from _check_produced(subject, quantizer, None, FORMATS, here)
    if here:
        yield from _check_refused(subject)
        yield from _check_inspected_once(subject)


def _formats_for(projection: Any) -> Iterator[tuple[Any, Any]]:
    """All formats; only the usual one for projections that differ by size."""
    small = projection is None or projection.weight.shape[0] == SIZES[0][0]
    yield from product(_DTYPES, _GROUPS) if small else [(FP8, GROUP)]


def _projections(subject: Subject) -> Iterator[tuple[Any, bool]]:
    """Projections, and whether the tree's own linear uses CK's GEMM for them."""
    yield None, True
    for n, k in SIZES:
        projection = subject.projection(n, k)
        quantizer = Quantizer(scales(3, k // GROUP, subject.device))
        read = subject.read(projection, quantizer.q, quantizer.row_major)
        yield projection, read.route is Route.BPRESHUFFLE


def _check_produced(
    subject: Subject,
    quantizer: Quantizer,
    projection: Any,
    named: dict[str, Any],
    asks: bool,
) -> Iterator[Wrong]:
    m, groups = quantizer.row_major.shape
    size = "none" if projection is None else tuple(projection.weight.shape)
    about = (
        f"{', '.join(f'{n}={v}' for n, v in named.items())}; projection {size}; "
        f"scale ({m}, {groups}), {quantizer.layout}"
    )
    try:
        outputs = subject.produce(quantizer, projection, quantizer.x, **named)
    except Exception as error:
        yield Wrong("the producer raises", f"no error at {about}", describe(error))
        return
    (x, *more), options = quantizer.asked[0]
    plain = named | ({"transpose_scale": True} if asks else {})
    if x is not quantizer.x or more or options != plain:
        yield Wrong(
            "the quantization receives the wrong request",
            f"{'a transposed' if asks else 'a row-major'} scale at {about}",
            f"called with {', '.join(f'{n}={v}' for n, v in options.items())}",
        )
        return
    most = 2 if asks and subject.case.switch is Switch.CHECK else 1
    if len(quantizer.asked) > most or quantizer.times_transposed != int(asks):
        yield Wrong(
            "the quantization runs more often than necessary",
            f"at most {most} times at {about}",
            f"{len(quantizer.asked)} times",
        )
    pair = outputs[0] if quantizer.nested else outputs
    others = outputs[1:] if quantizer.nested else ()
    if pair[0] is not quantizer.q or others != (
        quantizer.others if quantizer.nested else ()
    ):
        yield Wrong(
            "the producer returns other values",
            f"the quantization's own outputs at {about}",
            "others",
        )
        return
    yield from _check_scale(quantizer, pair[1], asks, about)


def _check_scale(
    quantizer: Quantizer, scale: Any, asks: bool, about: str
) -> Iterator[Wrong]:
    m, groups = quantizer.row_major.shape
    stored = quantizer.stored if asks else quantizer.row_major
    strides = (1, m) if asks else (groups, 1)
    distinct = min(m, groups) > 1
    if (
        marked(scale) is not asks
        or not same(scale, quantizer.row_major)
        or scale.data_ptr() != stored.data_ptr()
        or (distinct and tuple(scale.stride()) != strides)
    ):
        yield Wrong(
            "the producer returns a scale in the wrong state",
            f"{'marked' if asks else 'unmarked'}, strides {strides}, in the storage "
            f"that the quantization wrote, at {about}",
            f"{'marked' if marked(scale) else 'unmarked'}, strides {scale.stride()}, "
            f"{'right' if same(scale, quantizer.row_major) else 'wrong'} values",
        )


def _check_refused(subject: Subject) -> Iterator[Wrong]:
    """A layout that CK's GEMM would misread must raise, here or at the consumer."""
    for layout in PADDED:
        quantizer = Quantizer(scales(3, 2, subject.device), layout=layout)
        try:
            outputs = subject.produce(quantizer, None, quantizer.x, **FORMATS)
            subject.for_gemm(outputs[0][1], True)
        except RuntimeError:
            continue
        yield Wrong(
            "a transposed scale that no GEMM can read is accepted",
            "an error",
            f"no error for {layout}",
        )


def _check_inspected_once(subject: Subject) -> Iterator[Wrong]:
    """Each quantization is inspected once, because every layer of every step calls
    it."""
    for takes_flag in (True, False):
        quantizer = Quantizer(scales(3, 2, subject.device), takes_flag=takes_flag)
        function, site = quantizer.function(), subject.call_site()
        with (
            mock.patch.object(inspect, "signature", wraps=inspect.signature) as looked,
            logged("transpose_scale") as warnings,
        ):
            for _ in range(3):
                producer = getattr(subject.module, PRODUCER)
                site(True, producer, function, None, quantizer.x, **FORMATS)
        if len(warnings) != int(not takes_flag) or looked.call_count > 1:
            yield Wrong(
                "AITER's quantization is not inspected exactly once",
                f"one inspection and {int(not takes_flag)} warnings in 3 calls of one "
                f"{'with' if takes_flag else 'without'} transpose_scale",
                f"{looked.call_count} inspections, {len(warnings)} warnings",
            )
