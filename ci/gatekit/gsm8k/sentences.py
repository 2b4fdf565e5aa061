"""A comparison's result in one sentence."""

from __future__ import annotations

from gatekit.gsm8k.comparison import ABLE, ArmComparison, ArmFigures, Score
from gatekit.records.checks import Verdict


def sentence(compared: ArmComparison) -> str:
    """The verdict, then the figures and what they mean."""
    return f"{compared.verdict.value}: {_explanation(compared)}."


def _explanation(compared: ArmComparison) -> str:
    score = compared.score
    if score is None:
        broken = next(one for one in compared.controls if not one.holds)
        return (
            "the answers of the two arms cannot be compared: this control does not "
            f"hold: {broken.name} ({broken.found})"
        )
    rates = (
        f"{_right(compared.baseline)}, and the patched arm {_right(compared.patched)}"
    )
    if compared.verdict is Verdict.FAIL:
        claim = next(one for one in compared.claims if not one.holds)
        return (
            f"the patched arm is worse: the baseline answers {rates}; this claim does "
            f"not hold: {claim.name} ({claim.found})"
        )
    if any(one.name == ABLE and not one.holds for one in compared.controls):
        return (
            f"the baseline answers {_right(compared.baseline)}, so it has nothing to "
            "lose, and the comparison says nothing about the patched arm"
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
        return f"{what}, which about {score.further:,} more questions would decide"
    return f"{what}, and no feasible number of questions would decide it"


def _right(arm: ArmFigures) -> str:
    asked = sum(run.questions for run in arm.runs)
    return f"{sum(run.correct for run in arm.runs)} of {asked} correctly"


def _points(margin: float) -> str:
    return f"{100 * margin:g} points"
