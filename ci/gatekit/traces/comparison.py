"""Compare the module before and after: kernels, copies and time."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from gatekit.records.checks import Check, equal, none_of
from gatekit.traces.attribution import Call
from gatekit.traces.figures import Figures, KernelFigures, Layer, rest_of, total
from gatekit.traces.kernels import short

# The rest of a layer runs the same kernels on the same shapes, so its time varies only
# by some percent. A larger difference means different loads.
_REST = 0.15
# The share of the removed copies' time that a layer must save at least.
_SAVED = 0.5
# A copy moved out of the module adds 1 per call elsewhere. Other code, such as
# sampling, copies a few times per step, which is little per call.
_MOVED = 0.25


@dataclass(frozen=True)
class KernelDelta:
    """One kernel before and after, per call of the module."""

    short: str
    name: str
    kind: str
    change: str
    before: float
    after: float
    before_ns: float
    after_ns: float


def changes(
    before: Sequence[KernelFigures],
    after: Sequence[KernelFigures],
    calls: tuple[int, int],
) -> tuple[KernelDelta, ...]:
    """Every kernel of either trace; vanished and appeared ones first."""
    then = {one.name: one for one in before}
    now = {one.name: one for one in after}
    found = []
    for name in then | now:
        one = then.get(name) or now[name]
        old, new = then.get(name), now.get(name)
        counts = (
            (old.launches if old else 0) / max(calls[0], 1),
            (new.launches if new else 0) / max(calls[1], 1),
        )
        times = (
            (old.time_ns if old else 0) / max(calls[0], 1),
            (new.time_ns if new else 0) / max(calls[1], 1),
        )
        found.append(
            KernelDelta(one.short, name, one.kind, _change(*counts), *counts, *times)
        )
    order = ("vanished", "appeared", "changed", "same")
    return tuple(sorted(found, key=lambda c: (order.index(c.change), -c.before_ns)))


def _change(before: float, after: float) -> str:
    if before == after:
        return "same"
    if not after:
        return "vanished"
    return "changed" if before else "appeared"


def load_controls(before: Sequence[Layer], after: Sequence[Layer]) -> tuple[Check, ...]:
    """Whether both traces have the same load: layers, GEMMs, and time of the rest."""
    old, new = _means(before), _means(after)
    rest = (old.time_ns - old.copies_ns, new.time_ns - new.copies_ns)
    ratio = rest[1] / rest[0] if rest[0] else 0.0
    return (
        Check(
            "layers, as in the baseline",
            _layers(before),
            _layers(after),
            [one.layer for one in before] == [one.layer for one in after],
        ),
        equal("GEMMs per layer, as in the baseline", _gemms(before), _gemms(after)),
        Check(
            "the rest of a layer takes as long as in the baseline",
            f"{rest[0] / 1000:.1f} us, within {_REST:.0%}",
            f"{rest[1] / 1000:.1f} us ({ratio - 1:+.1%})",
            abs(ratio - 1) <= _REST,
        ),
    )


def claims(before: Sequence[Layer], after: Sequence[Layer]) -> tuple[Check, ...]:
    """The claims of the series for every layer, against the baseline."""
    then = {one.layer: one.per_call for one in before}
    pairs = [(then[o.layer], o.per_call) for o in after if o.layer in then]
    copies = [old.copies - new.copies for old, new in pairs]
    kernels = [old.kernels - new.kernels for old, new in pairs]
    others = [new.other_copies - old.other_copies for old, new in pairs]
    old, new = _means(before), _means(after)
    saved, gone = old.time_ns - new.time_ns, old.copies_ns - new.copies_ns
    return (
        Check(
            "copies vanish from every layer",
            "at least 1 per layer",
            _range(copies),
            bool(copies) and min(copies) > 0,
        ),
        Check(
            "the kernel count falls by the copies removed",
            _range(copies),
            _range(kernels),
            copies == kernels,
        ),
        Check(
            "no copies appear under other names",
            "0 more per layer",
            _range(others),
            bool(others) and max(others) <= 0,
        ),
        Check(
            "time per layer falls by about the copies' time",
            f"{gone / 1000:.2f} us, at least {_SAVED:.0%} of it",
            f"{saved / 1000:.2f} us",
            gone > 0 and saved >= _SAVED * gone,
        ),
    )


def rest_is_the_same(before: Sequence[Call], after: Sequence[Call]) -> Check:
    """In every call, only copies may differ: a new kernel in place of another may copy
    itself, or be the reason why there is nothing to copy."""
    known: defaultdict[int, list[Counter[str]]] = defaultdict(list)
    for call in before:
        if (rest := rest_of(call)) not in known[call.layer]:
            known[call.layer].append(rest)
    return none_of(
        "all other kernels match the baseline, in every call",
        "call with different kernels",
        _changed(known, after),
    )


def _changed(
    known: defaultdict[int, list[Counter[str]]], after: Sequence[Call]
) -> Iterator[str]:
    for call in after:
        rest = rest_of(call)
        if rest in known[call.layer]:
            continue
        usual = known[call.layer][0] if known[call.layer] else Counter[str]()
        kernels = [f"+{short(name)}" for name in rest - usual]
        kernels += [f"-{short(name)}" for name in usual - rest]
        yield f"layer {call.layer}, step {call.step}: {' '.join(kernels)}"


def no_copies_moved(before: float, after: float) -> Check:
    """Copies outside the module must not increase, per call of the module."""
    return Check(
        "no copies move out of the module",
        f"{before:.2f} per call of it, at most {_MOVED} more",
        f"{after:.2f}",
        after - before <= _MOVED,
    )


def _means(layers: Sequence[Layer]) -> Figures:
    """The mean per layer."""
    sums = total([one.per_call for one in layers])
    count = max(len(layers), 1)
    return Figures(
        sums.kernels // count,
        sums.copies // count,
        sums.other_copies // count,
        sums.before_gemm // count,
        sums.gemms // count,
        sums.time_ns // count,
        sums.copies_ns // count,
    )


def _layers(layers: Sequence[Layer]) -> str:
    return f"{len(layers)}: {_range([one.layer for one in layers])}"


def _gemms(layers: Sequence[Layer]) -> str:
    return _range([one.per_call.gemms for one in layers])


def _range(values: Sequence[int]) -> str:
    if not values:
        return "none"
    low, high = min(values), max(values)
    return str(low) if low == high else f"{low} to {high}"
