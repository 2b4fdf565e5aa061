"""Two arms' runs, joined by question: are they answers to the same thing?

What does not hold here makes the comparison invalid, whatever the scores: a missing
answer, a failed request counted as a wrong one, another question under the same id,
another prompt. None of it is a reason to score what is left.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from accuracy.answers import Answer
from accuracy.results import ResultSet, Settings
from inference.pairs import Pairs, pair
from traces.checks import Check, equal, none_of


@dataclass(frozen=True)
class Joined:
    """Both arms' runs, with the questions that all of them answered, in one order."""

    baseline: tuple[ResultSet, ...]
    patched: tuple[ResultSet, ...]
    ids: tuple[str, ...]
    controls: tuple[Check, ...]

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


def join(baseline: Sequence[ResultSet], patched: Sequence[ResultSet]) -> Joined:
    runs = (*baseline, *patched)
    shared = set(runs[0].answers).intersection(*(run.answers for run in runs[1:]))
    controls = (
        none_of("every question is answered", "open question", _open(runs)),
        none_of("no request failed", "failed request", _failed(runs)),
        none_of("all runs ask the same", "question of some runs only", _unshared(runs)),
        none_of(
            "the same id is the same question", "other question", _others(runs, shared)
        ),
        equal("the settings are the same", "one", _settings(runs)),
        none_of(
            "prompts are equally long in tokens",
            "question whose prompt differs",
            _prompts(runs, shared),
        ),
        none_of(
            "equal answers are graded alike",
            "question graded both ways",
            _grades(runs, shared),
        ),
    )
    return Joined(tuple(baseline), tuple(patched), tuple(sorted(shared)), controls)


def _open(runs: Iterable[ResultSet]) -> Iterator[str]:
    for run in runs:
        there = len(run.answers)
        if run.ids is not None:
            there = len(run.ids & run.answers.keys())
        if there != run.asked or not run.asked:
            yield f"{there} of {run.asked} answered in {run.path}"


def _failed(runs: Iterable[ResultSet]) -> Iterator[str]:
    for run in runs:
        for answer in run.answers.values():
            if not answer.answered:
                yield f"{answer.id} ended by {answer.finish_reason!r} in {run.path}"


def _unshared(runs: Sequence[ResultSet]) -> Iterator[str]:
    first = runs[0]
    for run in runs[1:]:
        for name in sorted(run.answers.keys() ^ first.answers.keys()):
            where = run if name in run.answers else first
            yield f"{name} only in {where.path}"


def _others(runs: Sequence[ResultSet], shared: Iterable[str]) -> Iterator[str]:
    for name in shared:
        asked = {
            (run.answers[name].problem, run.answers[name].expected_answer)
            for run in runs
        }
        if len(asked) > 1:
            yield name


def _settings(runs: Sequence[ResultSet]) -> str:
    """``one``, or how the first that differs does."""
    first = runs[0].settings
    for run in runs[1:]:
        for name in Settings.__struct_fields__:
            here, there = getattr(first, name), getattr(run.settings, name)
            if here != there:
                return f"{name}: {here} in {runs[0].path}, {there} in {run.path}"
    return "one"


def _prompts(runs: Sequence[ResultSet], shared: Iterable[str]) -> Iterator[str]:
    """The prompt as the server counts it: its chat template is not in our hands."""
    for name in shared:
        lengths = {run.answers[name].prompt_tokens for run in runs} - {None}
        if len(lengths) > 1:
            yield f"{name}: {sorted(filter(None, lengths))}"


def _grades(runs: Sequence[ResultSet], shared: Iterable[str]) -> Iterator[str]:
    """The grader gives up after a time: on a busy machine, a right answer is wrong."""
    for name in shared:
        grades: dict[str, set[bool]] = {}
        for run in runs:
            answer = run.answers[name]
            grades.setdefault(answer.generation, set()).add(answer.symbolic_correct)
        if any(len(found) > 1 for found in grades.values()):
            yield name
