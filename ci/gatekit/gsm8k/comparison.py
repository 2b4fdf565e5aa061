"""The verdict on two arms' answers, and the checks and figures behind it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import msgspec

from gatekit.gsm8k.answers import Answer
from gatekit.gsm8k.pairing import Pairing
from gatekit.gsm8k.questions import QuestionFile
from gatekit.gsm8k.results import BASELINE, ResultSet, Settings, answers_digest
from gatekit.records import runs as records
from gatekit.records.checks import Check, Verdict
from gatekit.stats.decision import Decision, PairedDecision, Rule, decide
from gatekit.stats.harm import harm_p
from gatekit.stats.intervals import newcombe
from gatekit.stats.pairs import Pairs

# Upstream's nightly test of this model, which checks one arm alone.
UPSTREAM_THRESHOLD = 0.93
# Margins that a run of this size can show, from `power`.
_WIDE, _NARROW, _NARROW_FROM = 0.015, 0.010, 3_900
# If the baseline answers nothing correctly, every patch would pass.
_LEAST_BASELINE = 0.10
ABLE = "the baseline has something to lose"
# Two more rates are tested, each at half the level.
_GUARD_LEVEL = 0.025
_Good = Callable[[Answer], bool]


class RunFigures(msgspec.Struct, frozen=True, kw_only=True):
    """The figures of one run. ``arm`` is the arm that the run records."""

    path: str
    arm: str
    questions: int
    answered: int
    correct: int
    truncated: int
    silent: int
    failed: int
    answers: str


class ArmFigures(msgspec.Struct, frozen=True, kw_only=True):
    """The runs of an arm. ``origin`` is None if the runs differ in it. Rates are None
    unless all runs are complete: an unanswered question is not a wrong answer."""

    runs: tuple[RunFigures, ...]
    origin: records.Origin | None
    accuracy: float | None
    truncated: float | None
    silent: float | None


class Score(msgspec.Struct, frozen=True, kw_only=True):
    """The paired comparison, in proportions of the questions. Differences are patched
    minus baseline. ``newcombe`` needs whole counts, so one run per arm."""

    questions: int
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


class ArmComparison(msgspec.Struct, frozen=True, kw_only=True):
    """``score`` and ``claims`` exist only if the runs are comparable. ``reasons`` lists
    the checks that do not hold; for a pass, the claims. ``settings`` and ``files`` are
    those that all runs share."""

    verdict: Verdict
    reasons: tuple[str, ...]
    baseline: ArmFigures
    patched: ArmFigures
    settings: Settings | None
    files: tuple[QuestionFile, ...]
    controls: tuple[Check, ...]
    claims: tuple[Check, ...] = ()
    score: Score | None = None
    threshold: Check | None = None

    @property
    def self_comparison(self) -> bool:
        """Whether both arms are the baseline, which says nothing about the patch."""
        runs = (*self.baseline.runs, *self.patched.runs)
        return all(run.arm == BASELINE for run in runs)

    @property
    def unlabelled(self) -> bool:
        """Whether some run does not record its arm, as with plain sgl-eval."""
        runs = (*self.baseline.runs, *self.patched.runs)
        return not all(run.arm for run in runs)

    @property
    def broken(self) -> tuple[Check, ...]:
        return tuple(one for one in (*self.controls, *self.claims) if not one.holds)


def compare(
    baseline: Sequence[ResultSet], patched: Sequence[ResultSet], margin: float | None
) -> ArmComparison:
    """Compare the arms, which must have the same number of runs."""
    pairing = Pairing(tuple(baseline), tuple(patched))
    if not pairing.valid:
        return _compared(pairing, Verdict.INVALID, pairing.controls)
    rule = Rule(default_margin(len(pairing.ids)) if margin is None else margin)
    pairs = pairing.pairs(lambda answer: answer.symbolic_correct)
    decided = decide(pairs, rule)
    harmless = (
        _harm(decided, rule),
        _guard(pairing, "truncated answers", lambda answer: not answer.truncated),
        _guard(pairing, "answers without a number", lambda answer: not answer.silent),
    )
    close, able = _close(decided, rule), _able(pairing)
    if not all(claim.holds for claim in harmless):
        verdict = Verdict.FAIL
    elif not close.holds:
        verdict = Verdict.INCONCLUSIVE
    else:
        verdict = Verdict.PASS if able.holds else Verdict.INVALID
    return _compared(
        pairing,
        verdict,
        (*pairing.controls, able),
        (*harmless, close),
        _score(pairing, pairs, decided, rule, verdict),
        _threshold(pairing),
    )


def _compared(
    pairing: Pairing,
    verdict: Verdict,
    controls: tuple[Check, ...],
    claims: tuple[Check, ...] = (),
    score: Score | None = None,
    threshold: Check | None = None,
) -> ArmComparison:
    first, *others = pairing.runs
    broken = tuple(one for one in (*controls, *claims) if not one.holds)
    telling = claims if verdict is Verdict.PASS else broken
    return ArmComparison(
        verdict=verdict,
        reasons=tuple(map(_reason, telling)),
        baseline=_arm(pairing.baseline),
        patched=_arm(pairing.patched),
        settings=(
            first.settings
            if all(run.settings == first.settings for run in others)
            else None
        ),
        files=first.files if all(run.files == first.files for run in others) else (),
        controls=controls,
        claims=claims,
        score=score,
        threshold=threshold,
    )


def default_margin(questions: int) -> float:
    """The margin that a comparison of this size can show."""
    return _NARROW if questions >= _NARROW_FROM else _WIDE


def _reason(check: Check) -> str:
    held = "holds" if check.holds else "does not hold"
    return f"{held}: {check.name}: {check.found}; needed: {check.expected}"


def _arm(runs: Sequence[ResultSet]) -> ArmFigures:
    figures = tuple(map(_figures, runs))
    complete = all(run.answered == run.asked > 0 and not run.failed for run in runs)
    asked = sum(run.questions for run in figures)

    def rate(counts: Iterable[int]) -> float | None:
        return sum(counts) / asked if complete else None

    origins = {run.origin for run in runs}
    return ArmFigures(
        runs=figures,
        origin=origins.pop() if len(origins) == 1 else None,
        accuracy=rate(run.correct for run in figures),
        truncated=rate(run.truncated for run in figures),
        silent=rate(run.silent for run in figures),
    )


def _figures(run: ResultSet) -> RunFigures:
    answers = run.answers.values()
    return RunFigures(
        path=run.path,
        arm=run.arm,
        questions=run.asked,
        answered=run.answered,
        correct=run.correct,
        truncated=sum(answer.truncated for answer in answers),
        silent=sum(answer.silent for answer in answers),
        failed=run.failed,
        answers=answers_digest(answers),
    )


def _harm(decided: PairedDecision, rule: Rule) -> Check:
    return Check(
        "the patch does no harm",
        f"p > {rule.level} (exact McNemar, one-sided)",
        f"p = {decided.harm_p:.4f}",
        decided.decision is not Decision.FAIL,
    )


def _guard(pairing: Pairing, what: str, good: _Good) -> Check:
    pairs = pairing.pairs(good)
    p = harm_p(pairs)
    return Check(
        f"{what} do not rise",
        f"p > {_GUARD_LEVEL} (exact McNemar, one-sided)",
        f"{0 - 100 * pairs.estimate:+.2f} points, p = {p:.4f}",
        p > _GUARD_LEVEL,
    )


def _close(decided: PairedDecision, rule: Rule) -> Check:
    """A pass needs this. If it is not shown, more questions may still show it."""
    lower = 100 * decided.interval.lower
    return Check(
        "any harm is below the margin",
        f"above {-100 * rule.margin:.2f} points (lower end of Tango's interval, "
        f"{rule.two_sided:.0%})",
        f"{lower:+.2f} points",
        decided.interval.lower > -rule.margin,
    )


def _score(
    pairing: Pairing,
    pairs: Pairs,
    decided: PairedDecision,
    rule: Rule,
    verdict: Verdict,
) -> Score:
    beside = None
    if pairs.runs == 1:
        gained, lost = round(pairs.gained), round(pairs.lost)
        both = pairing.baseline[0].correct - lost
        neither = pairs.questions - both - gained - lost
        other = newcombe(both, gained, lost, neither, rule.two_sided)
        beside = (other.lower, other.upper)
    return Score(
        questions=pairs.questions,
        margin=rule.margin,
        gained=pairs.gained,
        lost=pairs.lost,
        difference=pairs.estimate,
        discordance=pairs.discordance,
        baseline_discordance=pairing.within(pairing.baseline),
        patched_discordance=pairing.within(pairing.patched),
        lower=decided.interval.lower,
        upper=decided.interval.upper,
        level=decided.interval.level,
        harm_p=decided.harm_p,
        newcombe=beside,
        further=decided.further if verdict is Verdict.INCONCLUSIVE else None,
    )


def _able(pairing: Pairing) -> Check:
    return _at_least(ABLE, _LEAST_BASELINE, pairing.baseline)


def _threshold(pairing: Pairing) -> Check:
    name = "upstream's threshold, for comparison; decides nothing"
    return _at_least(name, UPSTREAM_THRESHOLD, pairing.patched)


def _at_least(name: str, rate: float, runs: Sequence[ResultSet]) -> Check:
    found = sum(run.correct for run in runs) / sum(run.asked for run in runs)
    return Check(name, f"at least {rate} right", f"{found:.4f}", found >= rate)
