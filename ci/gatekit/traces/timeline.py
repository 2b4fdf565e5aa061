"""Draw one layer, before and after, as a self-contained SVG.

Bars are the kernels in order, as long as they ran. The gaps between kernels are left
out: they are host time, and the claims are about kernels.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import floor, log10

from gatekit.svg import document, element, escaped, line, rect, text
from gatekit.traces.attribution import Call, Method
from gatekit.traces.events import Work
from gatekit.traces.kernels import Kind, kind_of, short
from gatekit.traces.verdicts import AnalysedTrace, Assessment

_WIDTH, _LEFT, _RIGHT = 1120, 72, 64
_PLOT = _WIDTH - _LEFT - _RIGHT
_ROW, _BAR, _TOP = 96, 46, 84
_LETTER = 6.4

_CLASSES = {
    Kind.DIRECT_COPY: "copy",
    Kind.OTHER_COPY: "copy",
    Kind.GEMM: "gemm",
    Kind.GEMM_PART: "gemm",
    Kind.ATTENTION: "attention",
    Kind.NORM_QUANT: "norm",
    Kind.TRANSFER: "other",
    Kind.OTHER: "other",
}
_LEGEND = (
    ("copy", "copy"),
    ("gemm", "GEMM"),
    ("attention", "attention"),
    ("norm", "norm, quantization"),
    ("other", "other"),
)
# The page uses the same colours.
STYLE = """
:root, svg { color-scheme: light dark; --ground: #ffffff; --ink: #1b2430;
  --quiet: #5b6675; --line: #d8dee6; --copy: #d9480f; --gemm: #4c78a8;
  --attention: #8064a8; --norm: #3a8f83; --other: #6b7785; --good: #1a7f4b;
  --bad: #c02a2a; --unsure: #9a6700; --panel: #f6f8fa; --onbar: #ffffff; }
@media (prefers-color-scheme: dark) { :root, svg { --ground: #12171e;
  --ink: #e4e9f0; --quiet: #98a4b3; --line: #2d3743; --copy: #ff8a4c;
  --gemm: #6d9dd1; --attention: #a58bd0; --norm: #55b5a6; --other: #66717e;
  --good: #4cc38a; --bad: #ff7b72; --unsure: #e0b04a; --panel: #1a212a;
  --onbar: #0d1117; } }
"""
_SVG_STYLE = """
svg { font: 12px ui-sans-serif, system-ui, sans-serif; background: var(--ground); }
text { fill: var(--ink); } .quiet { fill: var(--quiet); }
.title { font-size: 16px; font-weight: 600; } .row { font-weight: 600; }
.onbar { fill: var(--onbar); font-size: 11px; } .saved { fill: var(--good); }
.line { stroke: var(--line); } .bracket { stroke: var(--good); fill: none;
  stroke-dasharray: 3 3; }
.copy { fill: var(--copy); } .gemm { fill: var(--gemm); }
.attention { fill: var(--attention); } .norm { fill: var(--norm); }
.other { fill: var(--other); }
"""


def timeline(assessment: Assessment) -> str:
    """A typical call, with one time scale for before and after."""
    sides = [(assessment.analysed, "after")]
    if assessment.baseline is not None:
        sides = [(assessment.baseline, "before"), (assessment.analysed, "after")]
    else:
        sides = [(assessment.analysed, "trace")]
    drawn = [(name, one, typical(one)) for one, name in sides]
    # If the profiler lost the times, all are 0, but the scale needs a length.
    longest = max(1, *(_time(call) for _, _, call in drawn))
    bottom = _TOP + _ROW * len(drawn)
    parts = [*_head(assessment, drawn), *_axis(longest, bottom)]
    for row, (name, _, call) in enumerate(drawn):
        parts += _row(name, call, longest, _TOP + row * _ROW)
    if len(drawn) > 1 and all(call for _, _, call in drawn):
        parts += _saved(_time(drawn[0][2]), _time(drawn[1][2]), longest)
    style = element("style", STYLE + _SVG_STYLE)
    return document(_WIDTH, bottom + 44, (style, *parts), role="img") + "\n"


def typical(one: AnalysedTrace) -> Call | None:
    """The call with the median time in the middle layer."""
    if not one.calls:
        return None
    middle = one.layers[len(one.layers) // 2].layer
    calls = sorted((c for c in one.calls if c.layer == middle), key=_time)
    return calls[(len(calls) - 1) // 2]


def _time(call: Call | None) -> int:
    return sum(work.duration for work in call.work) if call else 0


def _text(
    x: float, y: float, content: str, kind: str = "", anchor: str = "start"
) -> str:
    return text(x, y, content, class_=kind, text_anchor=anchor)


def _head(
    assessment: Assessment, drawn: Sequence[tuple[str, AnalysedTrace, Call | None]]
) -> list[str]:
    call = drawn[-1][2]
    attributed = assessment.analysed.attribution.method is not Method.UNATTRIBUTED
    what = "layer" if attributed else "unattributed stretch"
    number = f"{what} {call.layer}" if call else "nothing attributed"
    gpu = assessment.analysed.trace.gpu or "GPU not named"
    parts = [
        _text(16, 26, f"Kernels of one {what}", "title"),
        _text(16, 46, f"{number} · {gpu} · kernel time, gaps left out", "quiet"),
    ]
    x = 640.0
    for kind, label in _LEGEND:
        parts.append(rect(x, 16, 12, 12, rx=2, class_=kind))
        parts.append(_text(x + 17, 26, label))
        x += 40 + len(label) * 7
    return parts


def _axis(longest: int, bottom: int) -> list[str]:
    step = _nice(longest / 1000 / 6)
    parts, mark = [], 0.0
    while mark * 1000 <= longest:
        x = _LEFT + mark * 1000 / longest * _PLOT
        parts.append(line(x, _TOP - 16, x, bottom, class_="line"))
        parts.append(_text(x, bottom + 18, f"{mark:g}", "quiet", "middle"))
        mark = round(mark + step, 9)
    parts.append(_text(_LEFT + _PLOT, bottom + 36, "µs", "quiet", "end"))
    return parts


def _nice(step: float) -> float:
    """1, 2 or 5 times a power of ten."""
    if step <= 0:
        return 1.0
    power: float = 10.0 ** floor(log10(step))
    return next((n * power for n in (1, 2, 5) if n * power >= step), 10 * power)


def _row(name: str, call: Call | None, longest: int, top: float) -> list[str]:
    middle = top + _BAR / 2
    parts = [_text(16, middle + 4, name, "row")]
    x = float(_LEFT)
    copies = 0
    for work in call.work if call else ():
        width = work.duration / longest * _PLOT
        parts += _bar(work, x, top, width)
        if kind_of(work.name).is_copy:
            copies += 1
            wedge = f"M{x + width / 2 - 4:.1f} {top - 11} h8 l-4 7z"
            parts.append(element("path", d=wedge, class_="copy"))
        x += width
    label_text = f"{len(call.work)} kernels, {copies} copies" if call else "none"
    label_text += f", {_time(call) / 1000:.2f} µs"
    parts.append(_text(_LEFT, top + _BAR + 18, label_text, "quiet"))
    return parts


def _bar(work: Work, x: float, top: float, width: float) -> list[str]:
    label = short(work.name)
    label_text = f"{label}: {work.duration / 1000:.2f} µs ({kind_of(work.name).value})"
    parts = [
        element(
            "rect",
            element("title", f"{escaped(label_text)}\n{escaped(work.name)}"),
            x=f"{x:.2f}",
            y=top,
            width=f"{max(width - 0.8, 0.6):.2f}",
            height=_BAR,
            rx=1.5,
            class_=_CLASSES[kind_of(work.name)],
        )
    ]
    room = int((width - 8) / _LETTER)
    if room >= 4:
        cut = label if len(label) <= room else label[: room - 1] + "…"
        parts.append(_text(x + 4, top + 20, cut, "onbar"))
        if room >= 7:
            time = f"{work.duration / 1000:.2f}"
            parts.append(_text(x + 4, top + 36, time, "onbar"))
    return parts


def _saved(before: int, after: int, longest: int) -> list[str]:
    if after >= before:
        return []
    x1 = _LEFT + after / longest * _PLOT
    x2 = _LEFT + before / longest * _PLOT
    top = _TOP + _ROW
    label_text = f"-{(before - after) / 1000:.2f} µs ({after / before - 1:.1%})"
    return [
        rect(x1, top, x2 - x1, _BAR, rx=2, class_="bracket"),
        _text(x2, top + _BAR + 18, label_text, "saved", "end"),
    ]
