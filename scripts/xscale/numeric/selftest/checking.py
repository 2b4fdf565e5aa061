"""Check mode on wrong scales: one element, one bit, one use at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import combinations, product
from typing import Any

from xscale.numeric.selftest.quantizers import (
    FORMATS,
    LAYOUTS,
    Quantizer,
    bits,
    scales,
)
from xscale.numeric.selftest.subject import Subject, Wrong, describe

_EVERY_PLACE = ((1, 4), (4, 1), (2, 3), (17, 5), (130, 3), (5, 48))
_EVERY_BIT = (3, 2)
_LONG = (4097, 3)

_INF, _NAN = 0x7F800000, 0x7FC00000
_SIGN = -0x80000000

# Pairs of bit patterns that compare equal by value, or are unequal to themselves.
_ALIKE = {
    "-0.0 for 0.0": (0, _SIGN),
    "a NaN of another payload": (_NAN, _NAN | 1),
    "a NaN of the other sign": (_NAN, _NAN | _SIGN),
    "a signalling NaN for a quiet one": (_NAN | 1, _INF | 1),
    "a number for a NaN": (_NAN, 0x3F800000),
    "a NaN for a number": (0x3F800000, _NAN),
    "infinity for the largest number": (_INF - 1, _INF),
    "infinity of the other sign": (_INF, _INF | _SIGN),
    "the smallest number for 0.0": (0, 1),
    "the other smallest number": (1, 2),
}

Alteration = tuple[str, Any, Any]
"""The description of an alteration, and (M, G) as computed and as stored."""


def every_bit(subject: Subject) -> Iterator[Wrong]:
    """Any difference is an error before the GEMM reads; no difference is no error."""
    for number, (what, truth, stored) in enumerate(_alterations(subject.device)):
        for bpreshuffle in (True, False):
            layout = LAYOUTS[(number + bpreshuffle) % 2]
            quantizer = Quantizer(truth, stored, layout)
            yield from raises(subject, quantizer, bpreshuffle, what)
    for name, truth in _right(subject.device).items():
        for layout, bpreshuffle in product(LAYOUTS, (True, False)):
            quantizer = Quantizer(truth, layout=layout)
            try:
                scale = _scale(subject.produce(quantizer, None, **FORMATS))
                for _ in range(2):
                    subject.for_gemm(scale, bpreshuffle)
            except Exception as error:
                yield Wrong(
                    "check mode rejects a right scale",
                    f"no error with {name}",
                    describe(error),
                )


def raises(
    subject: Subject,
    quantizer: Quantizer,
    bpreshuffle: bool,
    what: str,
    site: Callable[..., Any] | None = None,
    which: bool = True,
) -> Iterator[Wrong]:
    """Yield nothing if this wrong scale raises an error that names its call."""
    site = site or subject.call_site()
    gemm = "CK" if bpreshuffle else "Triton"
    try:
        outputs = subject.produce(quantizer, None, site=site, which=which, **FORMATS)
        subject.for_gemm(_scale(outputs), bpreshuffle)
    except Exception as error:
        names = (f"by {site.__name__} ", f"quant_of_{site.__name__} ")
        if not all(name in str(error) for name in names):
            yield Wrong(
                "check mode does not name the call",
                f"{site.__name__} and the function it called",
                describe(error),
            )
        return
    m, groups = quantizer.row_major.shape
    yield Wrong(
        "check mode lets a wrong scale through",
        f"an error before {gemm}'s GEMM reads {what}",
        f"no error, scale ({m}, {groups})",
    )


def _alterations(device: str) -> Iterator[Alteration]:
    for m, groups in _EVERY_PLACE:
        truth = scales(m, groups, device)
        for row, group in product(range(m), range(groups)):
            yield _flipped(truth, (row, group), 1)
    truth = scales(*_EVERY_BIT, device)
    places = list(product(range(_EVERY_BIT[0]), range(_EVERY_BIT[1])))
    for place, bit in product(places, range(32)):
        yield _flipped(truth, place, _SIGN if bit == 31 else 1 << bit)
    long = scales(*_LONG, device)
    for row, group in product(_rows(_LONG[0]), range(_LONG[1])):
        yield _flipped(long, (row, group), 1)
    for one, other in combinations(places, 2):
        yield from _balanced(truth, one, other)
    for (name, (is_, stored)), place in product(_ALIKE.items(), places):
        right, wrong = truth.clone(), truth.clone()
        bits(right)[place], bits(wrong)[place] = is_, stored
        yield f"{name} at {place}", right, wrong


def _rows(m: int) -> list[int]:
    """Both sides of each power of two, and the first and last rows."""
    powers = [1 << n for n in range(m.bit_length())]
    near = {p + d for p in powers for d in (-1, 0, 1)} | {m - 2, m - 1}
    return sorted(row for row in near if 0 <= row < m)


def _flipped(truth: Any, place: tuple[int, int], mask: int) -> Alteration:
    wrong = truth.clone()
    bits(wrong)[place] ^= mask
    return f"bits {mask & 0xFFFFFFFF:#x} flipped at {place}", truth, wrong


def _balanced(
    truth: Any, one: tuple[int, int], other: tuple[int, int]
) -> Iterator[Alteration]:
    """Differences that a sum, a parity or a set of the values would miss."""
    exchanged = truth.clone()
    exchanged[one], exchanged[other] = truth[other], truth[one]
    yield f"{one} and {other} exchanged", truth, exchanged
    both = truth.clone()
    bits(both)[one] ^= 2
    bits(both)[other] ^= 2
    yield f"the same bit flipped at {one} and {other}", truth, both
    shifted = truth.clone()
    bits(shifted)[one] += 1
    bits(shifted)[other] -= 1
    yield f"one more at {one} and one less at {other}", truth, shifted


def _right(device: str) -> dict[str, Any]:
    """Right scales with values that may look wrong."""
    named = {
        f"{m} rows of {groups}": scales(m, groups, device)
        for m, groups in ((0, 3), (1, 1), (1, 3), (3, 1), (3, 3), (17, 5))
    }
    for name, (is_, stored) in _ALIKE.items():
        truth = scales(3, 2, device)
        bits(truth)[0], bits(truth)[1:] = is_, stored
        named[name] = truth
    return named


def first_uses(subject: Subject) -> Iterator[Wrong]:
    """A check elsewhere, or at another shape, does not cover a use."""
    device = subject.device

    def wrong(m: int, groups: int) -> Quantizer:
        truth = scales(m, groups, device)
        stored = truth.clone()
        bits(stored)[-1, -1] ^= 1
        return Quantizer(truth, stored)

    def use(times: int, m: int, groups: int, site: Callable[..., Any]) -> None:
        for _ in range(times):
            right = Quantizer(scales(m, groups, device))
            scale = _scale(subject.produce(right, None, site=site, **FORMATS))
            subject.for_gemm(scale, True)

    # Layers share a call, and a forward pass uses each scale: test the first few.
    for times in range(8):
        site = subject.call_site()
        use(times, 3, 2, site)
        yield from raises(
            subject, wrong(3, 2), True, f"a wrong one after {times} others", site
        )
    for m, groups in ((1, 2), (3, 1), (2, 2), (3, 3)):
        site = subject.call_site()
        use(200, m, groups, site)
        yield from raises(
            subject, wrong(3, 2), True, f"another shape, after {m} by {groups}", site
        )
        yield from raises(
            subject, wrong(m, groups), True, "the same shape at another call",
            site, which=False,
        )  # fmt: skip
        yield from raises(
            subject, wrong(m, groups), True, "the same shape, called elsewhere"
        )
    for first, second in product((True, False), repeat=2):
        yield from _overwritten(subject, first, second)


def _overwritten(subject: Subject, first: bool, second: bool) -> Iterator[Wrong]:
    """Right for its first consumer, wrong for the second: the input's scale has two."""
    quantizer = Quantizer(scales(3, 2, subject.device))
    scale = _scale(subject.produce(quantizer, None, **FORMATS))
    subject.for_gemm(scale, first)
    bits(quantizer.stored)[0, 0] ^= 1
    try:
        subject.for_gemm(scale, second)
    except RuntimeError:
        return
    yield Wrong(
        "check mode does not check a scale's second use",
        "an error, because it was overwritten between the uses",
        "none",
    )


def _scale(outputs: Any) -> Any:
    return outputs[0][1]
