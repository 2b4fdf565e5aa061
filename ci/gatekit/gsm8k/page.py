"""The evidence page of the statistics, in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from gatekit.gsm8k.cases import Case
from gatekit.gsm8k.predictions import CalibrationRow, Predictions
from gatekit.stats.power import Detectable

_INTRO = """\
# What GSM8K on two arms can tell

Made by `{command}`, which prints the
same figures, unrounded, with `--json`.

The unit is the question, and both arms answer the same ones. FAIL: exact McNemar for
harm, one-sided, 5 %. PASS: the lower end of Tango's 90 % score interval of the
difference is above minus the margin. Both hold: FAIL. Neither: INCONCLUSIVE.
*Discordance* is the share of questions on which the arms differ; of itself it says
nothing of harm, for GPU kernels flip answers at temperature 0 too, but it is what
limits the comparison. All of it is computed from the definitions; no model was asked.
"""

_POWER = """
## What a run can tell

One run an arm. Chances are sums over all counts that may come. *False FAIL*: the arms
are equal. *Drop found*: the smallest true drop that FAILs with a chance of 80 %.
"""

_CALIBRATION = """
## How often it errs

*Type I*: the interval clears the margin although the true drop is the margin; it
should be near 5 %. Drawn with fixed seeds, and summed exactly where one run an arm
makes that possible. The last rows are drawn question by question: 6 % of the questions
are unsteady (a coin, in each run anew), and the patch breaks as many of the others as
the margin, in every run alike, so that the runs of a question are anything but
independent. False FAIL: the same without the broken ones.
"""

_CASES = """
## Published counts, put to the rule

The incident (SGLang 31490) ran for two weeks above a fixed gate. *Unpaired*: what the
two scores alone would have said, one-sided. Answers per question were not published, so
the discordance is supposed.
"""


def page(predictions: Predictions, command: str) -> str:
    parts = [_INTRO.format(command=command), _POWER, "\n", _power(predictions.rows)]
    if predictions.calibration:
        parts += [_CALIBRATION, "\n", _calibration(predictions.calibration)]
    if predictions.cases:
        parts += [_CASES, "\n", _cases(predictions.cases)]
    return "".join(parts)


def _power(rows: Sequence[Detectable]) -> str:
    head = (
        "questions", "discordance", "margin", "PASS if equal", "false FAIL",
        "FAIL at 1 point", "FAIL at the margin", "drop found",
    )  # fmt: skip
    return _table(
        head,
        (
            (
                f"{row.questions:,}",
                percent(row.discordance, 0),
                points(row.margin),
                percent(row.passes_if_equal),
                percent(row.fails_if_equal),
                percent(row.fails_at_1_point),
                percent(row.fails_at_margin),
                points(row.drop_found, 2),
            )
            for row in rows
        ),
    )


def _calibration(rows: Sequence[CalibrationRow]) -> str:
    head = (
        "questions", "runs an arm", "discordance", "margin", "draws",
        "type I, drawn", "type I, summed", "false FAIL",
    )  # fmt: skip
    return _table(
        head,
        (
            (
                f"{row.questions:,}",
                str(row.runs),
                percent(row.discordance),
                points(row.margin),
                f"{row.draws:,}",
                percent(row.type_1_drawn),
                percent(row.type_1_summed),
                percent(row.false_fails),
            )
            for row in rows
        ),
    )


def _cases(rows: Sequence[Case]) -> str:
    head = (
        "", "questions", "before", "after", "discordance", "margin", "unpaired p",
        "paired p", "interval", "decision", "further questions",
    )  # fmt: skip
    return _table(
        head,
        (
            (
                row.what,
                f"{row.questions:,}",
                f"{row.before:.3f}",
                f"{row.after:.3f}",
                percent(row.discordance, 0),
                points(row.margin),
                f"{row.unpaired_p:.3f}",
                f"{row.harm_p:.4f}",
                f"{100 * row.lower:+.2f} to {100 * row.upper:+.2f}",
                row.decision.upper(),
                f"{row.further:,}" if row.further else "-",
            )
            for row in rows
        ),
    )


def percent(value: float | None, digits: int = 1) -> str:
    return "-" if value is None else f"{100 * value:.{digits}f} %"


def points(value: float | None, digits: int = 1) -> str:
    return "-" if value is None else f"{100 * value:.{digits}f}"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
