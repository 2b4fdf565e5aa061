"""The figures as SVG: each arm's time per layer, relative to the pin's, over M."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from gatekit.microbench.arms import Arm
from gatekit.microbench.results import Cell
from gatekit.svg import document, element, text

_COLOURS = {
    Arm.PRISTINE: "#333333",
    Arm.PULL_REQUEST: "#d95f02",
    Arm.SERIES: "#1b7837",
    Arm.STRIDES: "#2166ac",
    Arm.BOUND: "#999999",
    Arm.GUARD_ALONE: "#d95f02",
}
# The pin is 1 by definition; the bound is the best possible.
_DASHES = {Arm.PRISTINE: "2 3", Arm.BOUND: "7 4"}
_WIDTH, _HEIGHT, _LEFT, _TOP, _RIGHT, _GAP = 430, 250, 56, 56, 24, 76


def plot(cells: Sequence[Cell], machine: str) -> str:
    """One panel per shape and mode. Empty if nothing was timed."""
    timed = [cell for cell in cells if any(row.time for row in cell.rows)]
    shapes = list(dict.fromkeys(cell.shape for cell in timed))
    arms = [
        arm for arm in Arm if any(r.arm == arm.value for c in timed for r in c.rows)
    ]
    panels = [(shape, mode) for shape in shapes for mode in ("replay", "eager")]
    if not panels:
        return ""
    wide = 2 * (_LEFT + _WIDTH + _RIGHT)
    tall = len(shapes) * (_HEIGHT + _GAP) + _TOP + 30
    title = f"Time per layer, as a part of the pinned release's, over M. {machine}"
    parts = [
        element("rect", width=wide, height=tall, fill="white"),
        text(_LEFT, 20, title, font_size=14),
        *_legend(arms),
    ]
    for number, (shape, mode) in enumerate(panels):
        down, right = divmod(number, 2)
        x = _LEFT + right * (wide // 2)
        y = _TOP + 24 + down * (_HEIGHT + _GAP)
        own = [cell for cell in timed if cell.shape == shape]
        panel = "\n".join(("", *_panel(own, arms, mode), ""))
        parts.append(element("g", panel, transform=f"translate({x} {y})"))
    drawn = document(wide, tall, parts, font_family="sans-serif", font_size=12)
    return f"{drawn}\n"


def _legend(arms: Sequence[Arm]) -> Iterator[str]:
    for number, arm in enumerate(arms):
        x = _LEFT + number * 150
        yield _line([(x, 40), (x + 28, 40)], arm)
        yield text(x + 34, 44, arm.value)


def _panel(cells: Sequence[Cell], arms: Sequence[Arm], mode: str) -> Iterator[str]:
    points = {arm: list(_points(cells, arm, mode)) for arm in arms}
    every = [value for line in points.values() for value in line]
    low, high = min(0.95, *every) - 0.01, max(1.05, *every) + 0.01

    def x_of(index: int) -> float:
        return index * _WIDTH / max(1, len(cells) - 1)

    def y_of(value: float) -> float:
        return _HEIGHT * (high - value) / (high - low)

    title = f"{cells[0].shape}, {'graph replay' if mode == 'replay' else 'eager'}"
    yield text(0, -8, title)
    step = 0.05 if high - low < 0.6 else 0.25
    for number in range(int(low / step) + 1, int(high / step) + 1):
        y = y_of(number * step)
        yield element("path", d=f"M0 {y:.1f}H{_WIDTH}", stroke="#dddddd")
        yield text(-6, y + 4, f"{number * step:.2f}", text_anchor="end")
    for index, cell in enumerate(cells):
        yield text(x_of(index), _HEIGHT + 18, str(cell.m), text_anchor="middle")
    yield text(_WIDTH / 2, _HEIGHT + 36, "M", text_anchor="middle")
    for arm, line in points.items():
        yield _line([(x_of(i), y_of(v)) for i, v in enumerate(line)], arm)


def _points(cells: Sequence[Cell], arm: Arm, mode: str) -> Iterator[float]:
    for cell in cells:
        time = cell.row(arm.value, mode).time
        if time is not None:
            yield time.to_pristine


def _line(points: Iterable[tuple[float, float]], arm: Arm) -> str:
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    dash = {"stroke_dasharray": _DASHES[arm]} if arm in _DASHES else {}
    return element(
        "polyline",
        points=path,
        fill="none",
        stroke=_COLOURS[arm],
        stroke_width=2,
        **dash,
    )
