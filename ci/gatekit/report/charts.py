"""Charts as inline SVG, as wide as a phone and sharp on wider screens. Shapes and words
carry the meaning; colours only repeat it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from gatekit.svg import document, element, line, rect, text

_WIDTH = 400
_STEPS = [n * 10.0**power for power in range(-4, 7) for n in (1, 2, 5)]
# Space for text beside and around the plots, and the height of a row.
_NAME, _VALUE, _HEAD, _FOOT, _ROW = 128, 62, 26, 24, 26
_LEFT, _TALL = 44, 150
# Smallest distance between the centres of two labels.
_APART = 44


@dataclass(frozen=True)
class Estimate:
    """A row of :func:`estimates`. ``label`` shows the value, or why there is none."""

    name: str
    value: float | None
    low: float | None = None
    high: float | None = None
    label: str = ""


@dataclass(frozen=True)
class Bar:
    """A row of :func:`bars`, of the patched arm (``after``) or the baseline arm."""

    name: str
    value: float
    label: str
    after: bool


@dataclass(frozen=True)
class Bound:
    """A value to compare estimates with. They must not cross a ``limit``."""

    at: float
    name: str
    limit: bool = False


def estimates(
    rows: Sequence[Estimate], bounds: Sequence[Bound], unit: str, label: str
) -> str:
    """A chart of values with their intervals, and of the bounds, on one scale."""
    known = [b.at for b in bounds]
    for row in rows:
        known += [v for v in (row.value, row.low, row.high) if v is not None]
    room = (max(known) - min(known) or 1.0) * 0.08
    low, high = min(known) - room, max(known) + room
    right, bottom = _WIDTH - _VALUE, _HEAD + _ROW * len(rows)

    def x_of(value: float) -> float:
        return _NAME + (value - low) / (high - low) * (right - _NAME)

    parts = []
    for at in _ticks(low, high, 5):
        parts.append(line(x_of(at), _HEAD, x_of(at), bottom, class_="grid"))
        parts.append(_text(x_of(at), bottom + 16, f"{at:+g}" if at else "0", "middle"))
    parts.append(_text(_WIDTH - 4, bottom + 16, unit, "end"))
    for bound in bounds:
        x = x_of(bound.at)
        kind = "limit" if bound.limit else "level"
        parts.append(line(x, _HEAD - 6, x, bottom, class_=kind))
        # The names of bounds that are close together go to opposite sides.
        near = [x_of(b.at) - x for b in bounds if b is not bound]
        aside = next((gap for gap in near if abs(gap) < _APART), 0.0)
        anchor = "end" if aside > 0 else "start" if aside < 0 else "middle"
        parts.append(_text(x, _HEAD - 11, bound.name, anchor))
    for number, row in enumerate(rows):
        y = _HEAD + _ROW * (number + 0.5)
        parts.append(_text(0, y + 4, row.name, kind="strong"))
        if row.value is None:
            parts.append(_text(_WIDTH - 4, y + 4, row.label, "end", "absent"))
            continue
        if row.low is not None and row.high is not None:
            parts.append(line(x_of(row.low), y, x_of(row.high), y, class_="span"))
            for end in (row.low, row.high):
                parts.append(line(x_of(end), y - 5, x_of(end), y + 5, class_="span"))
        parts.append(_circle(x_of(row.value), y, 4.5, "after"))
        parts.append(_text(_WIDTH - 4, y + 4, row.label, "end"))
    return _drawing(parts, bottom + _FOOT, label)


def bars(rows: Sequence[Bar], whole: float, label: str) -> str:
    """A bar chart of parts of a whole."""
    right = _WIDTH - _VALUE - 40
    parts = []
    for number, row in enumerate(rows):
        y = 6 + _ROW * number
        wide = (right - _NAME) * row.value / whole
        parts.append(_text(0, y + 13, row.name, kind="strong"))
        kind = "after" if row.after else "before"
        for width, class_ in ((right - _NAME, "track"), (max(wide, 0), kind)):
            parts.append(rect(_NAME, y, width, 18, rx=2, class_=class_))
        parts.append(_text(right + 8, y + 13, row.label))
    return _drawing(parts, 8 + _ROW * len(rows), label)


def by_layer(
    before: Mapping[int, float], after: Mapping[int, float], unit: str, label: str
) -> str:
    """A chart of one value for each layer, before (rings) and after (dots), from
    zero."""
    layers = sorted(before.keys() | after.keys())
    top = max([*before.values(), *after.values(), 0.0]) * 1.08 or 1.0
    right, bottom = _WIDTH - 8, _HEAD + _TALL

    def x_of(layer: int) -> float:
        width = (right - _LEFT) / max(len(layers), 1)
        return _LEFT + (layers.index(layer) + 0.5) * width

    def y_of(value: float) -> float:
        return bottom - value / top * _TALL

    parts = []
    for at in _ticks(0, top, 4):
        parts.append(line(_LEFT, y_of(at), right, y_of(at), class_="grid"))
        parts.append(_text(_LEFT - 6, y_of(at) + 4, f"{at:g}", "end"))
    every = max(1, -(-len(layers) // 10))
    for layer in layers[::every]:
        parts.append(_text(x_of(layer), bottom + 16, str(layer), "middle"))
    parts.append(_text(_LEFT, 12, unit))
    x = right - 128
    sides = (("before", before, 3.5, "ring"), ("after", after, 3, "after"))
    for name, values, radius, kind in sides:
        if values:
            parts += [_circle(x, 8, radius, kind), _text(x + 9, 12, name)]
        x += 68
        for layer, value in values.items():
            parts.append(_circle(x_of(layer), y_of(value), radius, kind))
    return _drawing(parts, bottom + _FOOT, label)


def _ticks(low: float, high: float, most: int) -> Iterator[float]:
    step = next(s for s in _STEPS if (high - low) / s <= most)
    for number in range(int(low // step), int(high // step) + 1):
        if low <= number * step <= high:
            yield round(number * step, 6)


def _circle(x: float, y: float, radius: float, kind: str) -> str:
    return element("circle", cx=x, cy=y, r=radius, class_=kind)


def _text(
    x: float, y: float, content: str, anchor: str = "start", kind: str = "label"
) -> str:
    return text(x, y, content, text_anchor=anchor, class_=kind)


def _drawing(parts: Sequence[str], height: int, label: str) -> str:
    return document(_WIDTH, height, parts, role="img", aria_label=label)
