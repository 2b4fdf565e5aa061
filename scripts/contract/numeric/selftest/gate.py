"""Which scales are asked for transposed and marked, and which consumers read what."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from itertools import product
from typing import Any
from unittest import mock

import torch

from contract.numeric.cases import GROUP, Switch
from contract.numeric.outcomes import Route
from contract.numeric.selftest.quantizers import (
    PADDED,
    PRESENTATIONS,
    Quantizer,
    same,
    scales,
)
from contract.numeric.selftest.subject import (
    PRODUCER,
    Subject,
    Wrong,
    logged,
    marked,
    told,
)
from contract.sites import MARKER

_FP8 = torch.float8_e4m3fn

# The fp8 of gfx94x is one of the others: no GEMM of gfx95 reads it.
_DTYPES = (_FP8, torch.float8_e4m3fnuz, torch.float8_e5m2, torch.float8_e5m2fnuz,
           torch.int8, torch.uint8, torch.bfloat16, None)  # fmt: skip
_GROUPS = (GROUP, 1, 32, 64, 127, 129, 256, None)

# Among them sizes whose exchange is, or is not, in upstream's table for Triton's GEMM.
_SIZES = ((704, 512), (7168, 512), (256, 7168), (512, 7168), (7168, 256))

# All layouts are alike where M or G is 1; decoding has few rows, prefill thousands.
_SHAPES = (*product((0, 1, 2, 3, 5), (1, 2, 3)), (130, 48), (4097, 3))
_ROWS = (1, 3, 130, 4097)


def gate(subject: Subject) -> Iterator[Wrong]:
    """What the producer asks its quantization for, and returns."""
    here = subject.case.platform.bpreshuffle and subject.case.switch is not Switch.OFF
    for projection, ck in _projections(subject):
        for dtype, group in _formats_for(projection):
            asks = here and ck and dtype == _FP8 and group == GROUP
            formats = {"dtype_quant": dtype, "group_size": group}
            named = {n: v for n, v in formats.items() if v is not None}
            for takes_flag in (True, False):
                quantizer = Quantizer(
                    scales(3, 2, subject.device), takes_flag=takes_flag
                )
                yield from _produced(
                    subject, quantizer, projection, named, asks and takes_flag
                )
    for shape, presentation, nested in product(_SHAPES, PRESENTATIONS, (True, False)):
        quantizer = Quantizer(
            scales(*shape, subject.device), presentation=presentation, nested=nested
        )
        yield from _produced(subject, quantizer, None, _formats(), here)
    if here:
        yield from _refused(subject)
        yield from _asked_once(subject)


def _formats_for(projection: Any) -> Iterator[tuple[Any, Any]]:
    """All of them, and of projections whose size is what matters the usual one."""
    small = projection is None or projection.weight.shape[0] == _SIZES[0][0]
    yield from product(_DTYPES, _GROUPS) if small else [(_FP8, GROUP)]


def _projections(subject: Subject) -> Iterator[tuple[Any, bool]]:
    """Projections, and whether the tree's own linear takes them to CK's GEMM."""
    yield None, True
    for n, k in _SIZES:
        projection = subject.projection(n, k)
        quantizer = Quantizer(scales(3, k // GROUP, subject.device))
        read = subject.read(projection, quantizer.q, quantizer.row_major)
        yield projection, read.route is Route.BPRESHUFFLE


def _formats() -> dict[str, Any]:
    return {"dtype_quant": _FP8, "group_size": GROUP}


def _produced(
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
        f"scale ({m}, {groups}), {quantizer.presentation}"
    )
    try:
        outputs = subject.produce(quantizer, projection, quantizer.x, **named)
    except Exception as error:
        yield Wrong("the producer raises", f"no error at {about}", told(error))
        return
    (x, *more), options = quantizer.asked[0]
    plain = named | ({"transpose_scale": True} if asks else {})
    if x is not quantizer.x or more or options != plain:
        yield Wrong(
            "the quantization is not asked for what it is to be",
            f"{'a transposed' if asks else 'the release own'} scale at {about}",
            f"asked with {', '.join(f'{n}={v}' for n, v in options.items())}",
        )
        return
    most = 2 if asks and subject.case.switch is Switch.CHECK else 1
    if len(quantizer.asked) > most or quantizer.times_transposed != int(asks):
        yield Wrong(
            "the quantization is run more often than it has to be",
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
    yield from _scale(quantizer, pair[1], asks, about)


def _scale(quantizer: Quantizer, scale: Any, asks: bool, about: str) -> Iterator[Wrong]:
    m, groups = quantizer.row_major.shape
    stored = quantizer.stored if asks else quantizer.row_major
    strides = (1, m) if asks else (groups, 1)
    tells = min(m, groups) > 1
    if (
        marked(scale) is not asks
        or not same(scale, quantizer.row_major)
        or scale.data_ptr() != stored.data_ptr()
        or (tells and tuple(scale.stride()) != strides)
    ):
        yield Wrong(
            "the producer returns a scale in the wrong state",
            f"{'marked' if asks else 'unmarked'}, strides {strides}, in the storage "
            f"that the quantization wrote, at {about}",
            f"{'marked' if marked(scale) else 'unmarked'}, strides {scale.stride()}, "
            f"{'right' if same(scale, quantizer.row_major) else 'wrong'} values",
        )


def _refused(subject: Subject) -> Iterator[Wrong]:
    """A layout that CK's GEMM would misread: an error, here or at the consumer."""
    for presentation in PADDED:
        quantizer = Quantizer(scales(3, 2, subject.device), presentation=presentation)
        try:
            outputs = subject.produce(quantizer, None, quantizer.x, **_formats())
            subject.for_gemm(outputs[0][1], True)
        except RuntimeError:
            continue
        yield Wrong(
            "a transposed scale that no GEMM can read is let through",
            "an error",
            f"none for {presentation}",
        )


def _asked_once(subject: Subject) -> Iterator[Wrong]:
    """Every layer of every step comes by: what a quantization can is found out once."""
    for takes_flag in (True, False):
        quantizer = Quantizer(scales(3, 2, subject.device), takes_flag=takes_flag)
        function, site = quantizer.function(), subject.call_site()
        with (
            mock.patch.object(inspect, "signature", wraps=inspect.signature) as looked,
            logged("transpose_scale") as said,
        ):
            for _ in range(3):
                producer = getattr(subject.module, PRODUCER)
                site(True, producer, function, None, quantizer.x, **_formats())
        if len(said) != int(not takes_flag) or looked.call_count > 1:
            yield Wrong(
                "what AITER's quantization can is not found out once",
                f"one look, and {int(not takes_flag)} warnings, in three calls of one "
                f"{'with' if takes_flag else 'without'} transpose_scale",
                f"{looked.call_count} looks, {len(said)} warnings",
            )


def consumer(subject: Subject) -> Iterator[Wrong]:
    """What either GEMM is given, of marked scales and of all others."""
    for shape in _SHAPES:
        truth = scales(*shape, subject.device)
        for name, scale in _unmarked(truth).items():
            yield from _as_ever(subject, name, scale)
    if subject.case.switch is Switch.OFF:
        sources: tuple[str, ...] = ()
    else:
        sources = PRESENTATIONS
    for presentation, shape in product(sources, _SHAPES):
        truth = scales(*shape, subject.device)
        outputs = subject.produce(
            Quantizer(truth, presentation=presentation), None, **_formats()
        )
        yield from _handed_on(subject, truth, outputs[0][1])
    yield from _foreign_marks(subject)
    yield from _at_linears(subject)


def _unmarked(truth: Any) -> dict[str, Any]:
    m, groups = truth.shape
    strided = truth.t().contiguous().t()
    twice = torch.cat([truth, truth])
    falsely = truth.clone()
    setattr(falsely, MARKER, False)
    return {
        "row-major": truth,
        "strided": strided,
        "rows of a row-major one": twice[m // 2 : m // 2 + m],
        "rows of a strided one": twice.t().contiguous().t()[m // 2 : m // 2 + m],
        "columns of a row-major one": truth[:, : groups // 2],
        "one whose mark says no": falsely,
    }


def _as_ever(subject: Subject, name: str, scale: Any) -> Iterator[Wrong]:
    copied = scale.transpose(-1, -2).contiguous().view(*scale.shape)
    for bpreshuffle, expected in ((True, copied), (False, scale)):
        before = _state(scale)
        got = subject.for_gemm(scale, bpreshuffle)
        kept = expected.data_ptr() == scale.data_ptr()
        if (
            not same(got, expected)
            or got.stride() != expected.stride()
            or (got.data_ptr() == scale.data_ptr()) is not kept
            or _state(scale) != before
        ):
            yield Wrong(
                "an unmarked scale is not handed on as it was before this series",
                f"the release's own treatment of {name} {tuple(scale.shape)}",
                f"strides {got.stride()}, "
                f"{'right' if same(got, expected) else 'wrong'} values, for "
                f"{'CK' if bpreshuffle else 'Triton'}'s GEMM",
            )


def _handed_on(subject: Subject, truth: Any, scale: Any) -> Iterator[Wrong]:
    m, groups = truth.shape
    before = _state(scale)
    for bpreshuffle in (True, False, True):
        got = subject.for_gemm(scale, bpreshuffle)
        if bpreshuffle:
            right = got.is_contiguous() and same(got.view(groups, m).t(), truth)
        else:
            right = same(got, truth)
        if (
            not right
            or got.shape != truth.shape
            or got.data_ptr() != scale.data_ptr()
            or _state(scale) != before
        ):
            yield Wrong(
                "a marked scale is not handed on as the GEMM reads it",
                f"the values that were computed, of shape {(m, groups)}, uncopied, "
                "and the scale itself left as it is",
                f"{'right' if right else 'wrong'} values, strides {got.stride()}, for "
                f"{'CK' if bpreshuffle else 'Triton'}'s GEMM",
            )


def _state(scale: Any) -> tuple[Any, ...]:
    return (
        scale.data_ptr(),
        tuple(scale.shape),
        scale.stride(),
        scale._version,
        sorted(vars(scale)),
    )


def _foreign_marks(subject: Subject) -> Iterator[Wrong]:
    """A mark on bytes that are not transposed: refused on either route."""
    truth = scales(3, 2, subject.device)
    wide = scales(3, 4, subject.device).t().contiguous().t()
    foreign = {
        "a row-major scale": truth,
        "rows of a transposed scale": wide[1:],
        "every other column of a transposed scale": wide[:, ::2][:2],
    }
    for (name, scale), bpreshuffle in product(foreign.items(), (True, False)):
        scale = scale.view_as(scale)
        setattr(scale, MARKER, True)
        try:
            subject.for_gemm(scale, bpreshuffle)
        except RuntimeError:
            continue
        yield Wrong(
            "a mark that strides contradict is believed",
            f"an error for {name}",
            f"none for {'CK' if bpreshuffle else 'Triton'}'s GEMM",
        )


def _at_linears(subject: Subject) -> Iterator[Wrong]:
    """The tree's own linear, on either GEMM: what that GEMM sees is the truth."""
    cases = [*product(_SIZES, (3,)), *product(_SIZES[:1], _ROWS)]
    for (n, k), m in cases:
        projection = subject.projection(n, k)
        truth = scales(m, k // GROUP, subject.device)
        for told_of in (projection, None):
            quantizer = Quantizer(truth)
            outputs = subject.produce(quantizer, told_of, quantizer.x, **_formats())
            for scale in (outputs[0][1], truth):
                read = subject.read(projection, quantizer.q, scale)
                if not same(read.seen, truth):
                    state = "marked" if marked(scale) else "unmarked"
                    yield Wrong(
                        "the linear's GEMM reads a wrong scale",
                        f"the {truth.numel()} values of a scale that is {state}",
                        f"others at M={m}, weights ({n}, {k}), "
                        f"on the {read.route.value} route",
                    )
