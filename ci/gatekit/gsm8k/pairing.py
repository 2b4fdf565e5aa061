"""Two arms' runs, joined by question: are they answers to the same thing?

What does not hold here makes the comparison invalid, whatever the scores: a missing
answer, a failed request counted as a wrong one, another question under the same id,
another prompt. None of it is a reason to score what is left.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import msgspec

from gatekit.gsm8k.answers import Answer
from gatekit.gsm8k.results import PATCHED, ResultSet, Settings
from gatekit.records.checks import Check, none_of
from gatekit.stats.pairs import Pairs, pair


@dataclass(frozen=True)
class Pairing:
    """Both arms' runs, with the questions that all of them answered, in one order."""

    baseline: tuple[ResultSet, ...]
    patched: tuple[ResultSet, ...]

    @property
    def runs(self) -> tuple[ResultSet, ...]:
        return (*self.baseline, *self.patched)

    @cached_property
    def ids(self) -> tuple[str, ...]:
        first, *others = (run.answers.keys() for run in self.runs)
        return tuple(sorted(set(first).intersection(*others)))

    @cached_property
    def controls(self) -> tuple[Check, ...]:
        return tuple(none_of(one.name, one.what, one.find(self)) for one in CONTROLS)

    @property
    def valid(self) -> bool:
        return all(control.holds for control in self.controls)

    def pairs(self, good: Callable[[Answer], bool]) -> Pairs:
        """Of any yes or no about an answer, yes being the better."""
        return pair(self._flags(self.baseline, good), self._flags(self.patched, good))

    def within(self, arm: Sequence[ResultSet]) -> float | None:
        """The share of questions on which two runs of the same arm differ, over all
        pairs of its runs; None for a single run."""
        flags = self._flags(arm, lambda answer: answer.symbolic_correct)
        found = [
            pair([one], [other]).discordance
            for number, one in enumerate(flags)
            for other in flags[number + 1 :]
        ]
        return sum(found) / len(found) if found else None

    def _flags(
        self, arm: Iterable[ResultSet], good: Callable[[Answer], bool]
    ) -> list[list[bool]]:
        return [[good(run.answers[name]) for name in self.ids] for run in arm]


def _open(pairing: Pairing) -> Iterator[str]:
    for run in pairing.runs:
        if run.answered != run.asked or not run.asked:
            yield f"{run.answered} of {run.asked} answered in {run.path}"


def _failed(pairing: Pairing) -> Iterator[str]:
    for run in pairing.runs:
        for answer in run.answers.values():
            if not answer.answered:
                yield f"{answer.id} ended by {answer.finish_reason!r} in {run.path}"


def _unshared(pairing: Pairing) -> Iterator[str]:
    first, *others = pairing.runs
    for run in others:
        for name in sorted(run.answers.keys() ^ first.answers.keys()):
            where = run if name in run.answers else first
            yield f"{name} only in {where.path}"


def _others(pairing: Pairing) -> Iterator[str]:
    for name in pairing.ids:
        answers = [run.answers[name] for run in pairing.runs]
        if len({(one.problem, one.expected_answer) for one in answers}) > 1:
            yield name


def _settings(pairing: Pairing) -> Iterator[str]:
    first, *others = pairing.runs
    for run in others:
        yield from _unlike(_flat(first.settings), _flat(run.settings), first, run)


def _models(pairing: Pairing) -> Iterator[str]:
    """As the replies say it; the settings have who was asked."""
    named = {
        answer.model: run.path
        for run in pairing.runs
        for answer in run.answers.values()
        if answer.model is not None
    }
    if len(named) > 1:
        yield from (f"{model!r} in {path}" for model, path in sorted(named.items()))


def _prompts(pairing: Pairing) -> Iterator[str]:
    """The prompt as the server counts it: its chat template is not in our hands."""
    for name in pairing.ids:
        lengths = {run.answers[name].prompt_tokens for run in pairing.runs} - {None}
        if len(lengths) > 1:
            yield f"{name}: {sorted(filter(None, lengths))}"


def _grades(pairing: Pairing) -> Iterator[str]:
    """The grader gives up after a time: on a busy machine, a right answer is wrong."""
    for name in pairing.ids:
        grades: dict[str, set[bool]] = {}
        for run in pairing.runs:
            answer = run.answers[name]
            grades.setdefault(answer.generation, set()).add(answer.symbolic_correct)
        if any(len(found) > 1 for found in grades.values()):
            yield name


def _misplaced(pairing: Pairing) -> Iterator[str]:
    """A baseline may stand in the other place, to be compared with itself."""
    for run in pairing.baseline:
        if run.arm == PATCHED:
            yield f"{run.path} says that it is of the patched arm"


def _altered(pairing: Pairing) -> Iterator[str]:
    for run in pairing.runs:
        if run.altered:
            yield f"{run.altered} in {run.path}"


def _contradictions(pairing: Pairing) -> Iterator[str]:
    for run in pairing.runs:
        yield from (f"{what} in {run.path}" for what in run.contradictions)


def _twice(pairing: Pairing) -> Iterator[str]:
    """A copy is no second run. No two are begun at once, to the last bit of a clock."""
    seen: dict[str, str] = {}
    for run in pairing.runs:
        if run.mark:
            first = seen.setdefault(run.mark, run.path)
            if first != run.path:
                yield f"{first} and {run.path}"


def _origins(pairing: Pairing) -> Iterator[str]:
    for first, *others in (pairing.baseline, pairing.patched):
        for run in others:
            yield from _unlike(_source(first), _source(run), first, run)


def _series(pairing: Pairing) -> Iterator[str]:
    """Those who say baseline and patched say that the series is what differs."""
    there = {run.origin.series for run in pairing.baseline} - {""}
    for run in pairing.patched:
        if run.arm == PATCHED and run.origin.series in there:
            yield f"{run.origin.series} in both arms, as {run.path} has it"


def _source(run: ResultSet) -> dict[str, object]:
    return {"arm": run.arm, **msgspec.structs.asdict(run.origin)}


def _flat(settings: Settings) -> dict[str, object]:
    fields = msgspec.structs.asdict(settings)
    return {**fields.pop("gen"), **fields}


def _unlike(
    here: dict[str, object], there: dict[str, object], one: ResultSet, other: ResultSet
) -> Iterator[str]:
    for name in sorted(here.keys() | there.keys()):
        values = [side.get(name, "") for side in (here, there)]
        if values[0] != values[1]:
            first, second = (repr(v) if v != "" else "not recorded" for v in values)
            yield f"{name} {first} in {one.path}, {second} in {other.path}"


class Control(NamedTuple):
    """There must be none of ``what``; ``step`` is what to do where there is."""

    name: str
    what: str
    step: str
    find: Callable[[Pairing], Iterator[str]]


_BUILDS = "compare runs of one build an arm, and tell --series as the server ran it"
CONTROLS = (
    Control(
        "every question is answered",
        "open question",
        "give the run's command once more: it asks what is open",
        _open,
    ),
    Control(
        "no request failed",
        "failed request",
        "make the run with ci/gsm8k.py run, which counts none as an answer",
        _failed,
    ),
    Control(
        "all runs ask the same",
        "question of some runs only",
        "make both arms' runs with the same --questions and --first",
        _unshared,
    ),
    Control(
        "the same id is the same question",
        "other question",
        "make both arms' runs with the same --questions",
        _others,
    ),
    Control(
        "the settings are the same",
        "setting that differs",
        "make both arms' runs with the same options",
        _settings,
    ),
    Control(
        "one model says to have answered",
        "other model",
        "make both arms' runs with a server that serves one model",
        _models,
    ),
    Control(
        "prompts are equally long in tokens",
        "question whose prompt differs",
        "serve both arms with the same chat template and tokenizer",
        _prompts,
    ),
    Control(
        "equal answers are graded alike",
        "question graded both ways",
        "make the run anew, with less running beside it: the grader ran out of time",
        _grades,
    ),
    Control(
        "a run's totals are those of its answers",
        "contradiction",
        "make the run anew, in another folder: one of the two was changed",
        _contradictions,
    ),
    Control(
        "a run is as it was when it was finished",
        "file that differs from its run's record",
        "make the run anew, in another folder",
        _altered,
    ),
    Control(
        "no run is there twice",
        "copy of a run",
        "name each run once: a copy of it measures nothing",
        _twice,
    ),
    Control(
        "runs are of the arm that they are given as",
        "run of the other arm",
        "name the runs of each arm behind its own option",
        _misplaced,
    ),
    Control("the runs of an arm have one origin", "run of another", _BUILDS, _origins),
    Control("the arms differ in the series", "series of both", _BUILDS, _series),
)
