"""The answer file: one JSON object per line, in sgl-eval's own format.

A line must have every field of :class:`Answer` without a default. Counts are tokens; a
grade is true or false. A server may omit the other fields. Our runs add the prompt's
length in tokens and the model that the reply names; the same code reads plain sgl-eval
files. Answers are in the order of their arrival, which differs from run to run.
"""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Iterator
from pathlib import Path

import msgspec

from gatekit.records.fields import Misfit, decoded
from overlaykit.core.errors import EnvironmentFailure, Finding, InputError

# The two finish reasons of an answer; any other means that the request failed.
STOP, TRUNCATED = "stop", "length"
_STEP = "repeat the run in another folder: this file is not as its program wrote it"


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to one question and its grade. Field names are sgl-eval's."""

    id: str
    problem: str
    expected_answer: str
    generation: str
    finish_reason: str | None
    predicted_answer: str | None
    symbolic_correct: bool
    num_generated_tokens: int = 0
    prompt_tokens: int | None = None
    model: str | None = None
    reasoning_content: str | None = None

    @property
    def answered(self) -> bool:
        return self.finish_reason in (STOP, TRUNCATED)

    @property
    def truncated(self) -> bool:
        return self.finish_reason == TRUNCATED

    @property
    def silent(self) -> bool:
        """Whether the grader found no answer in the reply."""
        return not (self.predicted_answer or "").strip()


def read_answers(path: Path, torn_end: bool) -> list[Answer]:
    """Read every answer in a file. ``torn_end`` ignores an incomplete last line, which
    a killed writer leaves.

    Raises InputError, also if a question has two answers, and EnvironmentFailure.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise EnvironmentFailure(f"cannot read {path}: {error.strerror}") from error
    if torn_end:
        data = data[: data.rfind(b"\n") + 1]
    found: dict[str, Answer] = {}
    for number, answer in _decoded(path, data):
        if answer.id in found:
            raise InputError(
                f'{path}:{number}: two answers to {answer.id}: "id": expected each '
                "question once, found it twice",
                (
                    Finding(
                        "the question has two answers",
                        path=str(path),
                        line=number,
                        expected="each id once",
                        found=answer.id,
                        next_step=_STEP,
                    ),
                ),
            )
        found[answer.id] = answer
    return list(found.values())


def _decoded(path: Path, data: bytes) -> Iterator[tuple[int, Answer]]:
    for number, line in enumerate(data.split(b"\n"), 1):
        if not line:
            continue
        try:
            yield number, decoded(line, Answer)
        except Misfit as error:
            head = f"{path}:{number} is not an answer"
            raise error.refusal(head, path, _STEP, number) from error


class AnswerLog:
    """Appends answers, unbuffered, so that a killed run loses none. On opening, an
    incomplete last line from a killed run is removed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: io.FileIO | None = None
        self._encoder = msgspec.json.Encoder()

    def __enter__(self) -> AnswerLog:
        try:
            # Unbuffered: closing must not retry a write that a full disk refused.
            self._file = self.path.open("ab", buffering=0)
            with self.path.open("rb") as written:
                whole = written.read().rfind(b"\n") + 1
            self._file.truncate(whole)
        except OSError as error:
            raise self._failure(error) from error
        return self

    def write(self, answer: Answer) -> None:
        assert self._file
        try:
            line = self._encoder.encode(answer) + b"\n"
            if self._file.write(line) < len(line):
                raise OSError(errno.ENOSPC, "no space left for the whole answer")
        except OSError as error:
            raise self._failure(error) from error

    def __exit__(self, *_: object) -> None:
        if self._file:
            with self._file as file:
                os.fsync(file.fileno())

    def _failure(self, error: OSError) -> EnvironmentFailure:
        step = "free disk space, then run the same command again to resume"
        finding = Finding(str(error), path=str(self.path), next_step=step)
        return EnvironmentFailure(f"cannot write {self.path}", (finding,))
