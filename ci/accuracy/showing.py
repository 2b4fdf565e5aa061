"""What ``ci/gsm8k.py`` prints for a person."""

from __future__ import annotations

from accuracy.comparing import Compared, RunFigures, Score
from accuracy.foretelling import Foretold
from accuracy.page import percent, points
from overlaykit.cli import table


def show_compared(compared: Compared) -> str:
    runs = [
        (arm, *_run(run))
        for arm, found in (
            ("baseline", compared.baseline),
            ("patched", compared.patched),
        )
        for run in found
    ]
    head = (
        "ARM",
        "QUESTIONS",
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
    lines += [
        f"{'holds' if claim.holds else 'FAILS':<12} {claim.name}: {claim.found}"
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
    score = f"{run.correct / run.questions:.4f}" if run.questions else "-"
    counts = (run.questions, run.correct, run.truncated, run.silent, run.failed)
    questions, correct, *rest = map(str, counts)
    return (questions, correct, score, *rest, run.path)


def _score(score: Score) -> list[str]:
    interval = f"{100 * score.lower:+.2f} to {100 * score.upper:+.2f} points"
    lines = [
        f"questions    {score.lost:g} lost, {score.gained:g} gained: "
        f"{100 * score.difference:+.2f} points",
        f"interval     {interval} ({score.level:.0%}, Tango); "
        f"margin {points(score.margin)}",
    ]
    if score.newcombe:
        lower, upper = score.newcombe
        lines.append(
            f"beside it    {100 * lower:+.2f} to {100 * upper:+.2f} (Newcombe)"
        )
    lines.append(
        f"discordance  {percent(score.discordance, 2)}; baseline against itself "
        f"{_measured(score.baseline_discordance)}, patched "
        f"{_measured(score.patched_discordance)}"
    )
    return lines


def _measured(value: float | None) -> str:
    return percent(value, 2) if value is not None else "not measured (one run)"


def show_power(foretold: Foretold) -> str:
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
            for row in foretold.rows
        ),
    )
