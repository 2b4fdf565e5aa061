"""The report as one self-contained HTML file: no scripts, no network."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from gatekit.records.checks import Check, Verdict
from gatekit.traces.comparison import KernelDelta
from gatekit.traces.figures import Figures
from gatekit.traces.timeline import STYLE, timeline
from gatekit.traces.verdicts import AnalysedTrace, Assessment, Requirement
from overlaykit.core.errors import Finding

_STYLE = """
body { margin: 0; background: var(--ground); color: var(--ink);
  font: 15px/1.5 ui-sans-serif, system-ui, sans-serif; }
main { max-width: 1120px; margin: 0 auto; padding: 32px 24px 64px; }
h1 { font-size: 26px; margin: 0 0 4px; } h2 { font-size: 18px; margin: 36px 0 10px; }
section + section { border-top: 1px solid var(--line); margin-top: 48px;
  padding-top: 32px; }
.quiet { color: var(--quiet); } code { font-size: 13px; overflow-wrap: anywhere; }
.verdict { display: inline-block; padding: 2px 14px; border-radius: 999px;
  color: var(--onbar); font-weight: 600; margin-right: 10px; }
.pass { background: var(--good); } .fail { background: var(--bad); }
.invalid { background: var(--unsure); }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: 14px; }
th { text-align: left; font-weight: 600; color: var(--quiet); }
th, td { padding: 5px 12px 5px 0; border-bottom: 1px solid var(--line);
  vertical-align: top; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums;
  white-space: nowrap; }
.good { color: var(--good); } .bad { color: var(--bad); font-weight: 600; }
.tiles { display: flex; flex-wrap: wrap; gap: 12px; margin: 20px 0; }
.tile { background: var(--panel); border: 1px solid var(--line); border-radius: 8px;
  padding: 10px 18px; } .tile b { display: block; font-size: 22px; }
details { margin-top: 24px; } summary { cursor: pointer; font-weight: 600; }
svg { width: 100%; min-width: 880px; height: auto; }
tr.total td { font-weight: 600; }
"""


def page(
    assessments: Sequence[Assessment],
    required: Requirement,
    unread: Sequence[Finding] = (),
) -> str:
    """One section per trace; unreadable traces come first."""
    parts = [_unread(unread)] if unread else []
    sections = "\n".join([*parts, *(_section(one, required) for one in assessments)])
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>Traces of {escape(required.module)}</title>"
        f"<style>{STYLE}{_STYLE}</style></head><body><main>\n{sections}\n"
        "</main></body></html>\n"
    )


def _unread(findings: Sequence[Finding]) -> str:
    rows = (
        ("", (f"<code>{escape(one.path or '')}</code>", escape(one.what)))
        for one in findings
    )
    heading = '<h1><span class="verdict invalid">not read</span>No verdict</h1>'
    return f"<section>{heading}{_table([('file', ''), ('why', '')], rows)}</section>"


def _section(assessment: Assessment, required: Requirement) -> str:
    one, baseline = assessment.analysed, assessment.baseline
    verdict = assessment.verdict.value
    parts = [
        f'<h1><span class="verdict {verdict}">{verdict}</span>'
        f"{escape(required.module)}</h1>",
        f'<p class="quiet"><code>{escape(one.trace.path)}</code>',
        f"<br>against <code>{escape(baseline.trace.path)}</code>" if baseline else "",
        f"<br>{escape(one.trace.gpu)} · {escape(one.attribution.method.value)}</p>",
        _tiles(one, baseline),
    ]
    if assessment.verdict is Verdict.INVALID:
        broken = [control for control in assessment.controls if not control.holds]
        parts += ["<h2>Why this trace is not evidence</h2>", _checks(broken)]
    else:
        parts += ["<h2>Claims</h2>", _checks(assessment.claims)]
    parts += ["<h2>One layer</h2>", f'<div class="scroll">{timeline(assessment)}</div>']
    if assessment.changes:
        parts += ["<h2>Kernels, per call</h2>", _changes(assessment.changes)]
    parts += [
        "<h2>Layers</h2>",
        _layers(one, baseline),
        f"<details><summary>All {len(assessment.controls)} controls</summary>",
        _checks(assessment.controls),
        "</details>",
    ]
    return f"<section>{''.join(parts)}</section>"


def _table(
    header: Iterable[tuple[str, str]], rows: Iterable[tuple[str, Iterable[str]]]
) -> str:
    """Cells are HTML. Headings come with the column's class, rows with the row's."""
    columns = list(header)
    head = "".join(f'<th class="{kind}">{name}</th>' for name, kind in columns)
    body = "".join(
        f'<tr class="{kind}">'
        + "".join(
            f'<td class="{column}">{cell}</td>'
            for cell, (_, column) in zip(cells, columns, strict=True)
        )
        + "</tr>"
        for kind, cells in rows
    )
    return (
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def _checks(checks: Iterable[Check]) -> str:
    header = [("", ""), ("check", ""), ("expected", ""), ("found", "")]
    return _table(
        header,
        (
            (
                "",
                (
                    '<span class="good">✓</span>'
                    if check.holds
                    else '<span class="bad">✗</span>',
                    escape(check.name),
                    escape(check.expected),
                    escape(check.found),
                ),
            )
            for check in checks
        ),
    )


def _tiles(one: AnalysedTrace, baseline: AnalysedTrace | None) -> str:
    def per_call(side: AnalysedTrace, value: int) -> float:
        return value / max(len(side.calls), 1)

    def tile(label: str, values: list[float], form: str, unit: str) -> str:
        values_text = " → ".join(dict.fromkeys(format(value, form) for value in values))
        return f'<div class="tile"><b>{values_text}{unit}</b>{label}</div>'

    sides = [side for side in (baseline, one) if side]
    return (
        '<div class="tiles">'
        + tile("layers", [float(len(side.layers)) for side in sides], "g", "")
        + tile(
            "copies per layer",
            [per_call(side, side.totals.copies) for side in sides],
            "g",
            "",
        )
        + tile(
            "kernels per layer",
            [per_call(side, side.totals.kernels) for side in sides],
            "g",
            "",
        )
        + tile(
            "kernel time per layer",
            [per_call(side, side.totals.time_ns) / 1000 for side in sides],
            ".2f",
            " µs",
        )
        + "</div>"
    )


def _changes(changes: Iterable[KernelDelta]) -> str:
    header = [
        ("", ""), ("kernel", ""), ("kind", ""), ("launches", "number"),
        ("µs", "number"),
    ]  # fmt: skip
    return _table(
        header,
        (
            (
                "",
                (
                    c.change if c.change == "same" else f"<b>{c.change}</b>",
                    f'<span title="{escape(c.name)}">{escape(c.short)}</span>',
                    escape(c.kind),
                    f"{c.before:g} → {c.after:g}",
                    f"{c.before_ns / 1000:.2f} → {c.after_ns / 1000:.2f}",
                ),
            )
            for c in changes
        ),
    )


def _layers(one: AnalysedTrace, baseline: AnalysedTrace | None) -> str:
    sides = [side for side in (baseline, one) if side]
    names = ("kernels", "copies", "copies before a GEMM", "other copies", "µs")
    header = [("layer", ""), *((name, "number") for name in names)]
    found = [{row.layer: row.per_call for row in side.layers} for side in sides]
    rows = [
        ("", [str(number), *_cells([side.get(number) for side in found])])
        for number in sorted({key for side in found for key in side})
    ]
    totals = ["all calls", *_cells([side.totals for side in sides])]
    return _table(header, [*rows, ("total", totals)])


def _cells(sides: Sequence[Figures | None]) -> list[str]:
    """Cells with before and after, or with the trace alone."""
    columns = zip(*map(_figures, sides), strict=True)
    return [" → ".join(values) for values in columns]


def _figures(one: Figures | None) -> tuple[str, ...]:
    if one is None:
        return ("-",) * 5
    counts = (one.kernels, one.copies, one.before_gemm, one.other_copies)
    return (*map(str, counts), f"{one.time_ns / 1000:,.2f}")
