"""From two arms' answers to a verdict, with everything that it rests on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum

import msgspec

from accuracy.answers import Answer
from accuracy.joining import Joined, join
from accuracy.results import ResultSet
from inference.decision import Decided, Decision, Rule, decide
from inference.harm import harm_p
from inference.intervals import newcombe
from inference.pairs import Pairs
from traces.checks import Check

# Upstream's nightly for this model, which looks at one arm alone.
UPSTREAM_THRESHOLD = 0.93
# Margins that a run of so many questions can hold, as measured (`power`).
_WIDE, _NARROW, _NARROW_FROM = 0.015, 0.010, 3_900
# A baseline that answers nothing has nothing to lose: any patch would pass.
_LEAST_BASELINE = 0.10
# Two rates are watched beside the score; each at half of the level.
_GUARD_LEVEL = 0.025
_Good = Callable[[Answer], bool]


class Verdict(Enum):
    """Invalid: the arms' answers are not ones to the same questions, or not all."""

    PASS = "pass"
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"
    INVALID = "invalid"


class RunFigures(msgspec.Struct, frozen=True, kw_only=True):
    path: str
    questions: int
    correct: int
    truncated: int
    silent: int
    failed: int


class Score(msgspec.Struct, frozen=True, kw_only=True):
    """The paired comparison. Proportions of the questions; differences are patched
    minus baseline. ``newcombe`` needs whole counts, so a single run an arm."""

    margin: float
    gained: float
    lost: float
    difference: float
    discordance: float
    baseline_discordance: float | None
    patched_discordance: float | None
    lower: float
    upper: float
    level: float
    harm_p: float
    newcombe: tuple[float, float] | None
    further: int | None


class Compared(msgspec.Struct, frozen=True, kw_only=True):
    """``score`` and ``claims`` are of valid comparisons only."""

    verdict: Verdict
    baseline: tuple[RunFigures, ...]
    patched: tuple[RunFigures, ...]
    controls: tuple[Check, ...]
    claims: tuple[Check, ...] = ()
    score: Score | None = None
    threshold: Check | None = None


def compare(
    baseline: Sequence[ResultSet], patched: Sequence[ResultSet], margin: float | None
) -> Compared:
    """As many runs in one arm as in the other."""
    joined = join(baseline, patched)
    figures = [tuple(map(_figures, arm)) for arm in (baseline, patched)]
    if not joined.valid:
        return Compared(
            verdict=Verdict.INVALID,
            baseline=figures[0],
            patched=figures[1],
            controls=joined.controls,
        )
    rule = Rule(default_margin(len(joined.ids)) if margin is None else margin)
    pairs = joined.pairs(lambda answer: answer.symbolic_correct)
    decided = decide(pairs, rule)
    claims = (
        _harm(decided, rule),
        _guard(joined, "truncated answers", lambda answer: not answer.truncated),
        _guard(joined, "answers without a number", lambda answer: not answer.silent),
    )
    able = _able(baseline, len(joined.ids))
    verdict = Verdict(decided.decision.value)
    if not all(claim.holds for claim in claims):
        verdict = Verdict.FAIL
    elif verdict is Verdict.PASS and not able.holds:
        verdict = Verdict.INVALID
    return Compared(
        verdict=verdict,
        baseline=figures[0],
        patched=figures[1],
        controls=(*joined.controls, able),
        claims=claims,
        score=_score(joined, pairs, decided, rule),
        threshold=_threshold(patched, len(joined.ids)),
    )


def default_margin(questions: int) -> float:
    """What a comparison of so many questions can show."""
    return _NARROW if questions >= _NARROW_FROM else _WIDE


def _figures(run: ResultSet) -> RunFigures:
    answers = run.answers.values()
    return RunFigures(
        path=run.path,
        questions=run.asked,
        correct=run.correct,
        truncated=sum(answer.truncated for answer in answers),
        silent=sum(answer.silent for answer in answers),
        failed=sum(not answer.answered for answer in answers),
    )


def _harm(decided: Decided, rule: Rule) -> Check:
    return Check(
        "the patch does no harm",
        f"p > {rule.level} (exact McNemar, one-sided)",
        f"p = {decided.harm_p:.4f}",
        decided.decision is not Decision.FAIL,
    )


def _guard(joined: Joined, what: str, good: _Good) -> Check:
    pairs = joined.pairs(good)
    p = harm_p(pairs)
    return Check(
        f"{what} do not rise",
        f"p > {_GUARD_LEVEL} (exact McNemar, one-sided)",
        f"{0 - 100 * pairs.estimate:+.2f} points, p = {p:.4f}",
        p > _GUARD_LEVEL,
    )


def _score(joined: Joined, pairs: Pairs, decided: Decided, rule: Rule) -> Score:
    beside = None
    if pairs.runs == 1:
        gained, lost = round(pairs.gained), round(pairs.lost)
        both = joined.baseline[0].correct - lost
        neither = pairs.questions - both - gained - lost
        other = newcombe(both, gained, lost, neither, rule.two_sided)
        beside = (other.lower, other.upper)
    return Score(
        margin=rule.margin,
        gained=pairs.gained,
        lost=pairs.lost,
        difference=pairs.estimate,
        discordance=pairs.discordance,
        baseline_discordance=joined.within(joined.baseline),
        patched_discordance=joined.within(joined.patched),
        lower=decided.interval.lower,
        upper=decided.interval.upper,
        level=decided.interval.level,
        harm_p=decided.harm_p,
        newcombe=beside,
        further=decided.further,
    )


def _able(baseline: Sequence[ResultSet], questions: int) -> Check:
    rate = _rate(baseline, questions)
    return Check(
        "the baseline has something to lose",
        f"at least {_LEAST_BASELINE} right",
        f"{rate:.4f}",
        rate >= _LEAST_BASELINE,
    )


def _threshold(patched: Sequence[ResultSet], questions: int) -> Check:
    rate = _rate(patched, questions)
    return Check(
        "upstream's threshold, for comparison; decides nothing",
        f"at least {UPSTREAM_THRESHOLD}",
        f"{rate:.4f}",
        rate >= UPSTREAM_THRESHOLD,
    )


def _rate(runs: Sequence[ResultSet], questions: int) -> float:
    return sum(run.correct for run in runs) / (questions * len(runs))
