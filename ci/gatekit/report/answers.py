"""The GSM8K section: each arm's answers, and their difference against the margin."""

from __future__ import annotations

from gatekit.report.charts import Bar, Bound, Estimate, bars, estimates
from gatekit.report.documents import Accuracy, Arm, Compared, Run, Score
from gatekit.report.evidence import Kind, find_evidence
from gatekit.report.schema import GateReport
from gatekit.report.section import (
    Drawing,
    Section,
    Table,
    claims,
    controls,
    origins,
    verdict_mark,
)

_KIND = Kind("gsm8k", "compared", Compared, "comparison of answers")
_INVALID, _PATCHED = "invalid", "patched"


def gsm8k(report: GateReport) -> Section:
    """The section of the comparison, question by question."""
    seen = find_evidence(report, "gsm8k", _KIND)
    said: list[str] = []
    drawings: list[Drawing] = []
    tables: list[Table] = []
    missing: list[str] = []
    for result in seen.found:
        one = result.compared
        said += [_capital(result.sentence)] if result.sentence else []
        arms = (("baseline", one.baseline), (_PATCHED, one.patched))
        of = origins(Arm(name, arm.origin) for name, arm in arms)
        tables += [_arms(one), *controls(one.controls), of]
        if one.verdict == _INVALID or one.score is None:
            missing.append("No interval: these answers cannot be compared.")
            continue
        said += _said(one.score)
        drawings += _drawings(one, one.score)
        rest = (*one.claims, *([one.threshold] if one.threshold else ()))
        tables.insert(1, claims("Claims", rest))
    return seen.section("gsm8k", "GSM8K", said, tables, drawings, missing)


def _named(one: Accuracy) -> list[tuple[str, str, Run]]:
    """Every run, with its arm and its name."""
    arms = (("baseline", one.baseline), (_PATCHED, one.patched))
    return [
        (arm, f"{arm} {number}" if len(answers.runs) > 1 else arm, run)
        for arm, answers in arms
        for number, run in enumerate(answers.runs, 1)
    ]


def _arms(one: Accuracy) -> Table:
    rows = (
        (
            name,
            str(run.questions),
            str(run.answered),
            str(run.correct),
            _rate(run),
            str(run.truncated),
            str(run.silent),
            str(run.failed),
        )
        for _, name, run in _named(one)
    )
    header = (
        "run", "questions", "answered", "right", "share", "truncated", "no number",
        "failed",
    )  # fmt: skip
    caption = f"Answers; verdict of the comparison: {verdict_mark(one.verdict).text}"
    return Table(caption, header, tuple(rows), tuple(range(1, 8)), brief=True)


def _rate(run: Run) -> str:
    if not run.questions:
        return "-"
    return f"{100 * run.correct / run.questions:.2f} %"


def _said(score: Score) -> list[str]:
    return [
        f"Patched minus baseline: {100 * score.difference:+.2f} points, "
        f"{100 * score.level:g} % interval (Tango) {100 * score.lower:+.2f} to "
        f"{100 * score.upper:+.2f}; the margin is {-100 * score.margin:+.2f}. "
        f"Exact McNemar for harm: p = {score.harm_p:.4f}.",
        f"The arms differ on {100 * score.discordance:.2f} % of the questions: "
        f"{score.gained:g} gained, {score.lost:g} lost"
        + _within("baseline", score.baseline_discordance)
        + _within("patched", score.patched_discordance)
        + ".",
    ]


def _capital(sentence: str) -> str:
    return sentence[:1].upper() + sentence[1:]


def _within(arm: str, discordance: float | None) -> str:
    value = "not measured" if discordance is None else f"{100 * discordance:.2f} %"
    return f"; {arm} arm against itself: {value}"


def _drawings(one: Accuracy, score: Score) -> list[Drawing]:
    rates = [
        Bar(name, run.correct / max(run.questions, 1), _rate(run), arm == _PATCHED)
        for arm, name, run in _named(one)
    ]
    difference = Estimate(
        "difference",
        100 * score.difference,
        100 * score.lower,
        100 * score.upper,
        f"{100 * score.difference:+.2f}",
    )
    bounds = [Bound(-100 * score.margin, "margin", limit=True), Bound(0.0, "equal")]
    what = f"{100 * score.level:g} % interval of the difference, patched minus baseline"
    return [
        Drawing("Right answers", bars(rates, 1, "Right answers of each run")),
        Drawing(
            f"{what}: to pass, all of it must be right of the margin",
            estimates([difference], bounds, "points", what),
        ),
    ]
