"""Pair two arms' runs by question, and check that they are comparable.

A control that does not hold makes the comparison invalid, whatever the scores: a
missing answer, a failed request counted as a wrong answer, different questions under
one id, different prompts. The rest of the answers is not scored either.
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
    """Both arms' runs, and the sorted ids of the questions that all of them
    answered."""

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
        """Pairs of a yes/no property of answers, where yes is the better outcome."""
        return pair(self._flags(self.baseline, good), self._flags(self.patched, good))

    def within(self, arm: Sequence[ResultSet]) -> float | None:
        """The share of questions on which two runs of one arm differ, averaged over all
        pairs of runs; None for a single run."""
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
                yield f"{answer.id} ended with {answer.finish_reason!r} in {run.path}"


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
    """The model that the replies name; the settings name the model requested."""
    named = {
        answer.model: run.path
        for run in pairing.runs
        for answer in run.answers.values()
        if answer.model is not None
    }
    if len(named) > 1:
        yield from (f"{model!r} in {path}" for model, path in sorted(named.items()))


def _prompts(pairing: Pairing) -> Iterator[str]:
    """The server's token counts: its chat template is outside our control."""
    for name in pairing.ids:
        lengths = {run.answers[name].prompt_tokens for run in pairing.runs} - {None}
        if len(lengths) > 1:
            yield f"{name}: {sorted(filter(None, lengths))}"


def _grades(pairing: Pairing) -> Iterator[str]:
    """The grader times out: on a busy machine it can grade a right answer as wrong."""
    for name in pairing.ids:
        grades: dict[str, set[bool]] = {}
        for run in pairing.runs:
            answer = run.answers[name]
            grades.setdefault(answer.generation, set()).add(answer.symbolic_correct)
        if any(len(found) > 1 for found in grades.values()):
            yield name


def _misplaced(pairing: Pairing) -> Iterator[str]:
    """A baseline may be given as the patched arm, for a self-comparison."""
    for run in pairing.baseline:
        if run.arm == PATCHED:
            yield f"{run.path} is recorded as the patched arm"


def _altered(pairing: Pairing) -> Iterator[str]:
    for run in pairing.runs:
        if run.altered:
            yield f"{run.altered} in {run.path}"


def _contradictions(pairing: Pairing) -> Iterator[str]:
    for run in pairing.runs:
        yield from (f"{what} in {run.path}" for what in run.contradictions)


def _twice(pairing: Pairing) -> Iterator[str]:
    """A copy is not a second run. Two runs never start at exactly the same time."""
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
    """The arms must differ in the series, if they record it."""
    there = {run.origin.series for run in pairing.baseline} - {""}
    for run in pairing.patched:
        if run.arm == PATCHED and run.origin.series in there:
            yield f"{run.origin.series} in both arms, also in {run.path}"


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
    """Holds if ``find`` yields nothing. ``what`` names one fault; ``step`` is the next
    step if there is one."""

    name: str
    what: str
    step: str
    find: Callable[[Pairing], Iterator[str]]


_BUILDS = "compare runs of one build per arm, and give --series as the server ran it"
CONTROLS = (
    Control(
        "every question is answered",
        "unanswered question",
        "run the same command again to ask the unanswered questions",
        _open,
    ),
    Control(
        "no request failed",
        "failed request",
        "use ci/gsm8k.py run, which does not count failed requests as answers",
        _failed,
    ),
    Control(
        "all runs ask the same questions",
        "question that some runs lack",
        "run both arms with the same --questions and --first",
        _unshared,
    ),
    Control(
        "the same id is the same question",
        "different question",
        "run both arms with the same --questions",
        _others,
    ),
    Control(
        "the settings are the same",
        "setting that differs",
        "run both arms with the same options",
        _settings,
    ),
    Control(
        "all answers name one model",
        "different model",
        "run both arms on a server that serves one model",
        _models,
    ),
    Control(
        "prompts have equal lengths in tokens",
        "question whose prompt differs",
        "serve both arms with the same chat template and tokenizer",
        _prompts,
    ),
    Control(
        "equal answers are graded alike",
        "question graded both ways",
        "repeat the run with less load on the machine: the grader ran out of time",
        _grades,
    ),
    Control(
        "a run's totals match its answers",
        "contradiction",
        "repeat the run in another folder: the totals or the answers were edited",
        _contradictions,
    ),
    Control(
        "a finished run is unchanged",
        "file that differs from its run's record",
        "repeat the run in another folder",
        _altered,
    ),
    Control(
        "no run is listed twice",
        "copy of a run",
        "name each run once: a copy measures nothing new",
        _twice,
    ),
    Control(
        "runs belong to the arm they are given as",
        "run of the other arm",
        "give the runs of each arm after its own option",
        _misplaced,
    ),
    Control(
        "the runs of an arm have one origin",
        "run with a different origin",
        _BUILDS,
        _origins,
    ),
    Control("the arms differ in the series", "series of both arms", _BUILDS, _series),
)
