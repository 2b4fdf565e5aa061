"""Charts as inline SVG, as wide as a phone and sharp on wider screens. Shapes and words
carry the meaning; colours only repeat it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape

from overlaykit.core.wording import one_line

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
        parts.append(_line(x_of(at), _HEAD, x_of(at), bottom, "grid"))
        parts.append(_text(x_of(at), bottom + 16, f"{at:+g}" if at else "0", "middle"))
    parts.append(_text(_WIDTH - 4, bottom + 16, unit, "end"))
    for bound in bounds:
        x = x_of(bound.at)
        parts.append(
            _line(x, _HEAD - 6, x, bottom, "limit" if bound.limit else "level")
        )
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
            parts.append(_line(x_of(row.low), y, x_of(row.high), y, "span"))
            for end in (row.low, row.high):
                parts.append(_line(x_of(end), y - 5, x_of(end), y + 5, "span"))
        x = x_of(row.value)
        parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4.5" class="after"/>')
        parts.append(_text(_WIDTH - 4, y + 4, row.label, "end"))
    return _svg(parts, bottom + _FOOT, label)


def bars(rows: Sequence[Bar], whole: float, label: str) -> str:
    """A bar chart of parts of a whole."""
    right = _WIDTH - _VALUE - 40
    parts = []
    for number, row in enumerate(rows):
        y = 6 + _ROW * number
        wide = (right - _NAME) * row.value / whole
        parts.append(_text(0, y + 13, row.name, kind="strong"))
        parts.append(_box(_NAME, y, right - _NAME, "track"))
        parts.append(_box(_NAME, y, wide, "after" if row.after else "before"))
        parts.append(_text(right + 8, y + 13, row.label))
    return _svg(parts, 8 + _ROW * len(rows), label)


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
        parts.append(_line(_LEFT, y_of(at), right, y_of(at), "grid"))
        parts.append(_text(_LEFT - 6, y_of(at) + 4, f"{at:g}", "end"))
    every = max(1, -(-len(layers) // 10))
    for layer in layers[::every]:
        parts.append(_text(x_of(layer), bottom + 16, str(layer), "middle"))
    parts.append(_text(_LEFT, 12, unit))
    x = right - 128
    for name, values, draw in (("before", before, _ring), ("after", after, _dot)):
        if values:
            parts += [draw(x, 8), _text(x + 9, 12, name)]
        x += 68
        parts += [draw(x_of(layer), y_of(value)) for layer, value in values.items()]
    return _svg(parts, bottom + _FOOT, label)


def _ticks(low: float, high: float, most: int) -> Iterator[float]:
    step = next(s for s in _STEPS if (high - low) / s <= most)
    for number in range(int(low // step), int(high // step) + 1):
        if low <= number * step <= high:
            yield round(number * step, 6)


def _ring(x: float, y: float) -> str:
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" class="ring"/>'


def _dot(x: float, y: float) -> str:
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" class="after"/>'


def _box(x: float, y: float, wide: float, kind: str) -> str:
    return (
        f'<rect x="{x:.1f}" y="{y}" width="{max(wide, 0):.1f}" height="18" rx="2" '
        f'class="{kind}"/>'
    )


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return (
        f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" '
        f'class="{kind}"/>'
    )


def _text(
    x: float, y: float, text: str, anchor: str = "start", kind: str = "label"
) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" class="{kind}">'
        f"{escape(one_line(text))}</text>"
    )


def _svg(parts: Sequence[str], height: float, label: str) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height:.0f}" '
        f'role="img" aria-label="{escape(one_line(label))}">'
        + "".join(parts)
        + "</svg>"
    )
