"""Kernels, copies and time per layer, and controls over all calls."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median_low

from gatekit.records.checks import Check, none_of
from gatekit.traces.attribution import Call
from gatekit.traces.events import Work
from gatekit.traces.kernels import Kind, kind_of, reads_scale, short

# Kernels allowed right before a GEMM that reads a scale: the producer of its input,
# another consumer of that input, or a copy, which is counted. Anything else may be a
# copy under an unknown name.
_BEFORE_GEMM = (
    Kind.NORM_QUANT,
    Kind.GEMM,
    Kind.GEMM_PART,
    Kind.DIRECT_COPY,
    Kind.OTHER_COPY,
)


@dataclass(frozen=True)
class Figures:
    """Figures of one call, or sums over calls. ``copies`` counts direct copies, and
    copies of any name right before a GEMM that reads a scale; ``other_copies`` counts
    the rest. ``before_gemm`` counts copies of any name right before any GEMM."""

    kernels: int
    copies: int
    other_copies: int
    before_gemm: int
    gemms: int
    time_ns: int
    copies_ns: int


Figured = tuple[Call, Figures]


@dataclass(frozen=True)
class Layer:
    """The figures of one layer: those of its call with the median time."""

    layer: int
    calls: int
    per_call: Figures


@dataclass(frozen=True)
class KernelFigures:
    """One kernel, summed over all calls."""

    name: str
    short: str
    kind: str
    launches: int
    time_ns: int


def _next_by_stream(work: Sequence[Work]) -> list[Work | None]:
    """For each kernel, the next one on its stream."""
    following: dict[int | str, Work] = {}
    found: list[Work | None] = []
    for one in reversed(work):
        found.append(following.get(one.stream))
        following[one.stream] = one
    return found[::-1]


def is_relayout(work: Work, following: Work | None) -> bool:
    """Whether it is a copy that the claims count."""
    kind = kind_of(work.name)
    return kind is Kind.DIRECT_COPY or (
        kind is Kind.OTHER_COPY
        and following is not None
        and reads_scale(following.name)
    )


def figures(call: Call) -> Figures:
    """The figures of one call."""
    copies = other = before = gemms = copies_ns = 0
    for work, following in zip(call.work, _next_by_stream(call.work), strict=True):
        kind = kind_of(work.name)
        gemms += kind is Kind.GEMM
        if not kind.is_copy:
            continue
        relayout = is_relayout(work, following)
        copies += relayout
        other += not relayout
        copies_ns += work.duration if relayout else 0
        before += following is not None and kind_of(following.name) is Kind.GEMM
    time_ns = sum(work.duration for work in call.work)
    return Figures(len(call.work), copies, other, before, gemms, time_ns, copies_ns)


def rest_of(call: Call) -> Counter[str]:
    """The call's kernels by name, without the copies that the claims count."""
    pairs = zip(call.work, _next_by_stream(call.work), strict=True)
    return Counter(one.name for one, after in pairs if not is_relayout(one, after))


def total(calls: Sequence[Figures]) -> Figures:
    """The sums over the calls."""
    return Figures(
        kernels=sum(one.kernels for one in calls),
        copies=sum(one.copies for one in calls),
        other_copies=sum(one.other_copies for one in calls),
        before_gemm=sum(one.before_gemm for one in calls),
        gemms=sum(one.gemms for one in calls),
        time_ns=sum(one.time_ns for one in calls),
        copies_ns=sum(one.copies_ns for one in calls),
    )


def by_layer(calls: Sequence[Figured]) -> tuple[Layer, ...]:
    """The layers in order, each represented by its call with the median time."""
    layers: defaultdict[int, list[Figures]] = defaultdict(list)
    for call, found in calls:
        layers[call.layer].append(found)
    return tuple(
        Layer(
            number,
            len(found),
            sorted(found, key=lambda one: one.time_ns)[(len(found) - 1) // 2],
        )
        for number, found in sorted(layers.items())
    )


def kernel_figures(calls: Sequence[Call]) -> tuple[KernelFigures, ...]:
    """Every kernel of the module, longest total time first."""
    launches: Counter[str] = Counter()
    times: Counter[str] = Counter()
    for call in calls:
        for work in call.work:
            launches[work.name] += 1
            times[work.name] += work.duration
    return tuple(
        KernelFigures(name, short(name), kind_of(name).value, launches[name], time_ns)
        for name, time_ns in times.most_common()
    )


def call_controls(calls: Sequence[Figured]) -> tuple[Check, ...]:
    """Every call must have GEMMs, and all calls equally many, or records were lost."""
    counts = Counter(found.gemms for _, found in calls)
    usual = median_low(counts.elements()) if counts else 0
    wrong = (
        f"layer {call.layer}, step {call.step}: {found.gemms}"
        for call, found in calls
        if found.gemms != usual
    )
    return (
        Check("GEMMs in every call", "at least 1", str(usual), usual > 0),
        none_of(
            f"{usual} GEMMs in every call", "call with another number of GEMMs", wrong
        ),
    )


def unknown_before_gemm(calls: Sequence[Call]) -> Check:
    """Without a baseline, this is the only check for copies under unknown names."""
    found: Counter[str] = Counter()
    for call in calls:
        for work, following in zip(call.work, _next_by_stream(call.work), strict=True):
            if following is None or not reads_scale(following.name):
                continue
            if kind_of(work.name) not in _BEFORE_GEMM:
                found[short(work.name)] += 1
    return none_of(
        "kernels right before a block-scale GEMM are of a known kind",
        "unknown kernel there (use --baseline to compare)",
        (f"{name} x{count}" for name, count in found.items()),
    )
