"""A comparison's outcome in one sentence, for who reads nothing else of it."""

from __future__ import annotations

from gatekit.gsm8k.comparison import ABLE, ArmComparison, ArmFigures, Score
from gatekit.records.checks import Verdict


def sentence(compared: ArmComparison) -> str:
    """What was found, and what that means. It begins with the verdict."""
    return f"{compared.verdict.value}: {_said(compared)}."


def _said(compared: ArmComparison) -> str:
    score = compared.score
    if score is None:
        broken = next(one for one in compared.controls if not one.holds)
        return (
            "the answers of the two arms cannot be compared, because this does not "
            f"hold: {broken.name} ({broken.found})"
        )
    rates = (
        f"{_right(compared.baseline)}, and the patched arm {_right(compared.patched)}"
    )
    if compared.verdict is Verdict.FAIL:
        claim = next(one for one in compared.claims if not one.holds)
        return (
            f"the patched arm answers worse: the baseline answers {rates}; this does "
            f"not hold: {claim.name} ({claim.found})"
        )
    if any(one.name == ABLE and not one.holds for one in compared.controls):
        return (
            f"the baseline answers {_right(compared.baseline)}, so it has nothing to "
            "lose, and the comparison says nothing of the patched arm"
        )
    if compared.verdict is Verdict.PASS:
        return (
            f"the baseline answers {rates}; a drop of {_points(score.margin)} or more "
            "is ruled out"
        )
    return f"the baseline answers {rates}; {_open(score)}"


def _open(score: Score) -> str:
    what = f"a drop of {_points(score.margin)} is neither shown nor ruled out"
    if score.further:
        return f"{what}, which about {score.further:,} further questions would decide"
    return f"{what}, and no number of questions within reach would decide it"


def _right(arm: ArmFigures) -> str:
    asked = sum(run.questions for run in arm.runs)
    return f"{sum(run.correct for run in arm.runs)} of {asked} rightly"


def _points(margin: float) -> str:
    return f"{100 * margin:g} points"
