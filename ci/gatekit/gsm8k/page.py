"""The evidence page of the statistics, as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from gatekit.gsm8k.cases import Case
from gatekit.gsm8k.predictions import CalibrationRow, Predictions
from gatekit.stats.power import Detectable
from overlaykit.core.markdown import table_lines

_INTRO = """\
# What a GSM8K comparison of two arms can show

Made by `{command}`;
`--json` prints the same figures unrounded.

The unit is the question; both arms answer the same questions. FAIL: McNemar's exact
test finds harm, one-sided, 5 %. PASS: the lower end of Tango's 90 % score interval of
the difference is above minus the margin. If both hold, FAIL; if neither, INCONCLUSIVE.
*Discordance* is the share of questions on which the arms differ. Alone it does not show
harm, because GPU kernels flip answers at temperature 0 too, but it limits what the
comparison can show. Every figure is computed from the definitions; no model was run.
"""

_POWER = """
## What one run per arm can show

Probabilities are sums over all possible counts. *False FAIL*: FAIL although the arms
are equal. *Drop found*: the smallest true drop that FAILs with a probability of 80 %.
"""

_CALIBRATION = """
## Error rates

*Type I*: the interval clears the margin although the true drop equals the margin; this
should be near 5 %. The figures are simulated with fixed seeds, and summed exactly for
one run per arm. The last rows simulate each question: 6 % of the questions are unsteady
(right or wrong at random, in each run), and the patch breaks a share of the others
equal to the margin, the same ones in every run, so that the runs of a question are not
independent. False FAIL: the same without the broken questions.
"""

_CASES = """
## The rule applied to published scores

The incident (SGLang 31490) went unnoticed for two weeks above a fixed gate. *Unpaired*:
the p value from the two scores alone, one-sided. Answers per question were not
published, so the discordance is assumed.
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
        "questions", "runs per arm", "discordance", "margin", "draws",
        "type I, simulated", "type I, summed", "false FAIL",
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
    return "\n".join((*table_lines(head, rows), ""))
