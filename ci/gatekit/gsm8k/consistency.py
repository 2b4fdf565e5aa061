"""Check that the totals of a GSM8K run match its answers.

Totals and answers are stored side by side, so either may have been edited, or written
by a program that counts differently. Each contradiction is one line: the field, the
value that follows from the answers, and the value found.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import msgspec

from gatekit.gsm8k.answers import STOP, Answer
from gatekit.records.fields import contradiction

_WHOLE = re.compile(r"-?[0-9]{1,18}")
_ROUNDING = 1e-9
# Required fields of sgl-eval's summary, metrics.json, and their meaning.
NEEDED = {
    "name": "the benchmark's name",
    "model": "the model's name",
    "gen": "what was sent with each request",
    "sgl_eval_version": "sgl-eval's version",
    "num_examples": "the number of questions with an answer",
    "n_repeats": "how often each question was asked",
    "total_completion_tokens": "the sum of num_generated_tokens, in tokens",
    "aggregate": "the means over all answers",
    "aggregate.score": "the share of correct answers, 0 to 1",
}


class Aggregate(msgspec.Struct, frozen=True):
    """Shares, 0 to 1. The rates count only answers with a finish reason."""

    score: float
    stop_rate: float | None = None
    truncated_rate: float | None = None
    error_rate: float | None = None


class Prompt(msgspec.Struct, frozen=True):
    """A prompt other than the benchmark's own."""

    yaml: str


class Metrics(msgspec.Struct, frozen=True):
    """The fields read from sgl-eval's summary; see ``NEEDED``. The last three are
    present only if the run was interrupted or had another prompt."""

    name: str
    model: str
    gen: dict[str, object]
    sgl_eval_version: str
    num_examples: int
    n_repeats: int
    total_completion_tokens: int
    aggregate: Aggregate
    prompt: Prompt | None = None
    planned_examples: int | None = None
    completed_samples: int | None = None


def unequal(field: str, expected: object, found: object) -> Iterator[str]:
    if expected != found:
        yield contradiction(field, expected, found)


def of_answers(answers: Iterable[Answer], gen: Mapping[str, object]) -> Iterator[str]:
    """Contradictions within one answer."""
    limit = gen.get("max_tokens")
    for one in answers:
        wrong = []
        if one.symbolic_correct and one.silent:
            wrong.append(("symbolic_correct", "false: no answer", "true"))
        elif (equal := _equal(one)) is not None and equal != one.symbolic_correct:
            what = f"{one.predicted_answer} for {one.expected_answer}"
            found = _word(one.symbolic_correct)
            wrong.append(("symbolic_correct", f"{_word(equal)} of {what}", found))
        tokens, prompt = one.num_generated_tokens, one.prompt_tokens
        if tokens < 0:
            wrong.append(("num_generated_tokens", "0 or more", str(tokens)))
        elif type(limit) is int and tokens > limit:
            most = f"{limit} (max_tokens) or fewer"
            wrong.append(("num_generated_tokens", most, str(tokens)))
        if prompt is not None and prompt < 1:
            wrong.append(("prompt_tokens", "1 or more", str(prompt)))
        for field, expected, found in wrong:
            yield f"{one.id}: {contradiction(field, expected, found)}"


def of_asked(
    asked: Sequence[str], questions: int, answers: Iterable[str]
) -> Iterator[str]:
    """Contradictions in a run's list of questions. ``questions`` is the number in its
    files."""
    known = set(asked)
    if len(known) < len(asked):
        twice = next(name for name in asked if asked.count(name) > 1)
        yield contradiction("asked", "each question once", f"{twice} again")
    if len(asked) > questions:
        most = f'{questions} (those of its "files") or fewer'
        yield contradiction("asked", most, len(asked))
    for name in sorted(set(answers) - known):
        yield contradiction("id", f"one of the {len(known)} asked", name)


def of_metrics(metrics: Metrics, repeats: Sequence[Sequence[Answer]]) -> Iterator[str]:
    """Contradictions between sgl-eval's summary and the answers of every repeat."""
    every = [answer for answers in repeats for answer in answers]
    planned = metrics.planned_examples
    if planned is None:
        for number, answers in enumerate(repeats):
            name = f"num_examples, by output-rs{number}.jsonl"
            yield from unequal(name, len(answers), metrics.num_examples)
    else:
        seen = len({answer.id for answer in every})
        yield from unequal("num_examples", seen, metrics.num_examples)
        if planned < seen:
            yield contradiction("planned_examples", f"{seen} or more", planned)
    if metrics.completed_samples is not None:
        yield from unequal("completed_samples", len(every), metrics.completed_samples)
    tokens = sum(answer.num_generated_tokens for answer in every)
    yield from unequal(
        "total_completion_tokens", tokens, metrics.total_completion_tokens
    )
    aggregate = metrics.aggregate
    if planned is None:
        yield from _rate(
            "score", aggregate.score, every, lambda one: one.symbolic_correct
        )
    ended = [answer for answer in every if answer.finish_reason]
    for name, found, good in (
        ("stop_rate", aggregate.stop_rate, lambda one: one.finish_reason == STOP),
        ("truncated_rate", aggregate.truncated_rate, lambda one: one.truncated),
        ("error_rate", aggregate.error_rate, lambda one: not one.answered),
    ):
        if found is not None:
            yield from _rate(name, found, ended, good)


def _rate(
    name: str, found: float, answers: Sequence[Answer], good: Callable[[Answer], bool]
) -> Iterator[str]:
    count = sum(map(good, answers))
    part = count / len(answers) if answers else 0.0
    if not math.isclose(found, part, rel_tol=0, abs_tol=_ROUNDING):
        expected = f"{part:.9g} ({count} of {len(answers)} answers)"
        yield contradiction(f"aggregate.{name}", expected, f"{found:.9g}")


def _equal(answer: Answer) -> bool | None:
    """Whether two integers are equal; None otherwise, as only the grader knows."""
    found, expected = (answer.predicted_answer or "").strip(), answer.expected_answer
    if not (_WHOLE.fullmatch(found) and _WHOLE.fullmatch(expected)):
        return None
    return int(found) == int(expected)


def _word(value: bool) -> str:
    return "true" if value else "false"
