"""What each GEMM receives for marked scales, for all others, and at the linear."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

import torch

from xscale.numeric.cases import GROUP, Switch
from xscale.numeric.selftest.quantizers import (
    FORMATS,
    LAYOUTS,
    SHAPES,
    SIZES,
    Quantizer,
    same,
    scales,
)
from xscale.numeric.selftest.subject import Subject, Wrong, marked
from xscale.sites import MARKER

_ROWS = (1, 3, 130, 4097)


def consumer(subject: Subject) -> Iterator[Wrong]:
    """Test what each GEMM receives for marked scales and for all others."""
    for shape in SHAPES:
        truth = scales(*shape, subject.device)
        for name, scale in _unmarked(truth).items():
            yield from _check_unmarked(subject, name, scale)
    if subject.case.switch is Switch.OFF:
        sources: tuple[str, ...] = ()
    else:
        sources = LAYOUTS
    for layout, shape in product(sources, SHAPES):
        truth = scales(*shape, subject.device)
        outputs = subject.produce(Quantizer(truth, layout=layout), None, **FORMATS)
        yield from _check_marked(subject, truth, outputs[0][1])
    if subject.case.switch is Switch.ON:
        # Check mode refuses other values than those that were computed.
        for layout, bpreshuffle in product(sources, (True, False)):
            yield from _check_replaced(subject, layout, bpreshuffle)
    yield from _check_foreign_marks(subject)
    yield from _check_linears(subject)


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


def _check_unmarked(subject: Subject, name: str, scale: Any) -> Iterator[Wrong]:
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
                "an unmarked scale is not passed on as it was before this series",
                f"the release's own handling of {name} {tuple(scale.shape)}",
                f"strides {got.stride()}, "
                f"{'right' if same(got, expected) else 'wrong'} values, for "
                f"{'CK' if bpreshuffle else 'Triton'}'s GEMM",
            )


def _check_marked(subject: Subject, truth: Any, scale: Any) -> Iterator[Wrong]:
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
                "a marked scale is not passed on as the GEMM reads it",
                f"the values that were computed, of shape {(m, groups)}, uncopied, "
                "and the scale itself unchanged",
                f"{'right' if right else 'wrong'} values, strides {got.stride()}, for "
                f"{'CK' if bpreshuffle else 'Triton'}'s GEMM",
            )


def _check_replaced(
    subject: Subject, layout: str, bpreshuffle: bool
) -> Iterator[Wrong]:
    """A mark promises strides, so a marked scale is read where it is now: other bytes
    by their strides, and bytes that are not transposed not at all."""
    gemm = f"{'CK' if bpreshuffle else 'Triton'}'s GEMM, {layout}"
    truth = scales(3, 2, subject.device) + 1

    def made() -> Any:
        quantizer = Quantizer(scales(3, 2, subject.device), layout=layout)
        return subject.produce(quantizer, None, **FORMATS)[0][1]

    for what, scale in _replaced(made, truth.t().contiguous().t()).items():
        got = subject.for_gemm(scale, bpreshuffle)
        if not same(got.reshape(2, 3).t() if bpreshuffle else got, truth):
            yield Wrong(
                "a marked scale is not read where it is",
                f"its present values after {what}, for {gemm}",
                "others",
            )
    for rows in (truth, truth.t().contiguous().view(3, 2), None):
        scale = made()
        scale.data = scale.data[:2] if rows is None else rows
        try:
            subject.for_gemm(scale, bpreshuffle)
        except RuntimeError:
            continue
        yield Wrong(
            "a marked scale of other strides is accepted", "an error", f"none: {gemm}"
        )


def _replaced(made: Callable[[], Any], other: Any) -> dict[str, Any]:
    """Marked scales that are not where their producer left them."""
    adopted, reset, assigned, first = other.view_as(other), made(), made(), made()
    vars(adopted).update(vars(made()))
    reset.set_(other)
    assigned.data = other
    # As if another process's scale had been given the memory of the one that it sent.
    sent = pickle.loads(pickle.dumps(first))
    sent.data = first.data
    return {
        "its attributes are copied to another tensor": adopted,
        "set_()": reset,
        "an assignment of .data": assigned,
        "it is sent to another process": sent.copy_(other),
    }


def _state(scale: Any) -> tuple[Any, ...]:
    return (
        scale.data_ptr(),
        tuple(scale.shape),
        scale.stride(),
        scale._version,
        sorted(vars(scale)),
    )


def _check_foreign_marks(subject: Subject) -> Iterator[Wrong]:
    """A mark on bytes that are not transposed must be refused on either route."""
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
            "a mark that contradicts the strides is trusted",
            f"an error for {name}",
            f"no error for {'CK' if bpreshuffle else 'Triton'}'s GEMM",
        )


def _check_linears(subject: Subject) -> Iterator[Wrong]:
    """The tree's own linear with either GEMM: that GEMM must see the true values."""
    cases = [*product(SIZES, (3,)), *product(SIZES[:1], _ROWS)]
    for (n, k), m in cases:
        projection = subject.projection(n, k)
        truth = scales(m, k // GROUP, subject.device)
        for known_by in (projection, None):
            quantizer = Quantizer(truth)
            outputs = subject.produce(quantizer, known_by, quantizer.x, **FORMATS)
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
