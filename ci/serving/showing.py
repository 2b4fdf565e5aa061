"""The benchmark's reports, as a person reads them."""

from __future__ import annotations

from overlaykit.cli import Report, Result, table
from serving.plan import RunResult


def show(report: Report) -> str:
    """The report as a person reads it."""
    return "\n\n".join(
        _show_runs(one) if isinstance(one, RunResult) else _show_comparison(one)
        for one in report.results
    )


def _show_runs(result: RunResult) -> str:
    if result.commands:
        return "\n".join(result.commands)
    header = ("POINT", "ARM", "ROUND", "tok/s", "TPOT ms", "TTFT ms", "OUTCOME")
    rows = (
        (
            str(run.measurement.point),
            run.arm,
            str(run.round),
            f"{run.measurement.throughput:.1f}",
            f"{run.measurement.median_tpot_ms:.3f}",
            f"{run.measurement.median_ttft_ms:.1f}",
            "; ".join(run.measurement.faults) or "-",
        )
        for run in result.runs
    )
    return table(header, rows)


def _show_comparison(result: Result) -> str:
    from serving.comparison import Comparison, said

    if not isinstance(result, Comparison) or not result.points:
        return ""
    header = ("POINT", "THROUGHPUT", "MEDIAN TPOT", "WITHIN", "MEDIAN TTFT (advisory)")
    rows = [
        (
            row.point,
            said(row.throughput),
            said(row.tpot),
            _within(row.noninferior_p, row.harm_p, result.alpha),
            said(row.ttft),
        )
        for row in result.points
    ]
    throughput, tpot, ttft = result.headline
    rows.append(("all", said(throughput), said(tpot), "", said(ttft)))
    return (
        f"candidate to baseline, geometric means of {result.rounds} rounds, 95 % "
        f"intervals; margin {result.margin_percent:g} %\n{table(header, rows)}"
    )


def _within(
    noninferior: tuple[float, ...], harm: tuple[float, ...], alpha: float
) -> str:
    if min(harm) <= alpha:
        return f"NO (p {min(harm):.4f})"
    word = "yes" if max(noninferior) <= alpha else "not shown"
    return f"{word} (p {max(noninferior):.4f})"
