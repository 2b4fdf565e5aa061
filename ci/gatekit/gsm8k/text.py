"""The reports of ``ci/gsm8k.py`` as text."""

from __future__ import annotations

from gatekit.gsm8k.comparison import ArmComparison, RunFigures, Score
from gatekit.gsm8k.page import percent, points
from gatekit.gsm8k.predictions import Predictions
from gatekit.gsm8k.results import ARMS
from gatekit.records import runs as records
from overlaykit.cli import table


def comparison_text(compared: ArmComparison) -> str:
    arms = dict(zip(ARMS, (compared.baseline, compared.patched), strict=True))
    runs = [(name, *_run(run)) for name, arm in arms.items() for run in arm.runs]
    head = (
        "ARM",
        "QUESTIONS",
        "ANSWERED",
        "RIGHT",
        "SCORE",
        "TRUNCATED",
        "SILENT",
        "FAILED",
        "RUN",
    )
    held = sum(control.holds for control in compared.controls)
    lines = [
        table(head, runs),
        "",
        f"controls     {held} of {len(compared.controls)} hold",
    ]
    for name, arm in arms.items():
        if arm.origin and str(arm.origin) != str(records.Origin()):
            lines.append(f"{name:<12} {arm.origin}")
    lines += [
        f"{'yes' if claim.holds else 'NO':<12} {claim.name}: {claim.found}"
        for claim in compared.claims
    ]
    if compared.score:
        lines += _score(compared.score)
    if compared.threshold:
        reached = "reached" if compared.threshold.holds else "missed"
        lines.append(
            f"threshold    {compared.threshold.expected}: {reached} "
            f"({compared.threshold.found}); decides nothing"
        )
    return "\n".join(lines)


def _run(run: RunFigures) -> tuple[str, ...]:
    # Unanswered and failed questions are not wrong answers, so there is no score.
    whole = run.questions == run.answered > 0 and not run.failed
    score = f"{run.correct / run.questions:.4f}" if whole else "-"
    *asked, correct = map(str, (run.questions, run.answered, run.correct))
    rest = map(str, (run.truncated, run.silent, run.failed))
    return (*asked, correct, score, *rest, run.path)


def _score(score: Score) -> list[str]:
    interval = f"{100 * score.lower:+.2f} to {100 * score.upper:+.2f} points"
    lines = [
        f"questions    {score.questions}: {score.lost:g} lost, "
        f"{score.gained:g} gained, {100 * score.difference:+.2f} points",
        f"interval     {interval} ({score.level:.0%}, Tango); "
        f"margin {points(score.margin)}",
    ]
    if score.newcombe:
        lower, upper = score.newcombe
        lines.append(f"Newcombe     {100 * lower:+.2f} to {100 * upper:+.2f} points")
    lines.append(
        f"discordance  {percent(score.discordance, 2)}; baseline against itself "
        f"{_measured(score.baseline_discordance)}, patched "
        f"{_measured(score.patched_discordance)}"
    )
    return lines


def _measured(value: float | None) -> str:
    return percent(value, 2) if value is not None else "not measured (one run)"


def power_text(predictions: Predictions) -> str:
    head = (
        "QUESTIONS", "DISCORDANCE", "MARGIN", "PASS IF EQUAL", "FALSE FAIL",
        "FAIL AT 1 POINT", "FAIL AT MARGIN", "TYPE I", "DROP FOUND",
    )  # fmt: skip
    return table(
        head,
        (
            (
                f"{row.questions}",
                percent(row.discordance),
                points(row.margin),
                percent(row.passes_if_equal),
                percent(row.fails_if_equal),
                percent(row.fails_at_1_point),
                percent(row.fails_at_margin),
                percent(row.type_1),
                points(row.drop_found, 2),
            )
            for row in predictions.rows
        ),
    )
