"""Answers as they are kept: a line each, in sgl-eval's own format.

A line must have the fields of :class:`Answer` that have no default; counts are of
tokens, a grade is true or false. A server may leave the others unlabelled.
Ours adds the length of the prompt in tokens and the model that says to have answered;
plain sgl-eval's files are read by the same code. A file is in the order in which
answers came, which is no run's twice.
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

# The only two ways for an answer to end; anything else is a request that failed.
STOP, TRUNCATED = "stop", "length"
_STEP = "make the run anew, in another folder: it is not as its program writes it"


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """One question's answer and grade, under sgl-eval's names."""

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
        """Answered, but with nothing that the grader finds to be an answer."""
        return not (self.predicted_answer or "").strip()


def read_answers(path: Path, torn_end: bool) -> list[Answer]:
    """Every answer of a file. ``torn_end`` leaves out a last line without its end,
    which was being written when its writer was killed.

    Raises InputError, also for a file with two answers to one question, and
    EnvironmentFailure.
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
                "question once, found it again",
                (
                    Finding(
                        "answered before",
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
            head = f"{path}:{number} holds no answers"
            raise error.refusal(head, path, _STEP, number) from error


class AnswerLog:
    """Appends answers; each is the system's once written, so that a killed run loses
    none. A torn last line, of a run killed while writing, is cut off first."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: io.FileIO | None = None
        self._encoder = msgspec.json.Encoder()

    def __enter__(self) -> AnswerLog:
        try:
            # Unbuffered: what a full disk refused must not be tried again on closing.
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
                raise OSError(errno.ENOSPC, "no space for a whole answer")
        except OSError as error:
            raise self._failure(error) from error

    def __exit__(self, *_: object) -> None:
        if self._file:
            with self._file as file:
                os.fsync(file.fileno())

    def _failure(self, error: OSError) -> EnvironmentFailure:
        step = "make room there; the same command goes on"
        finding = Finding(str(error), path=str(self.path), next_step=step)
        return EnvironmentFailure(f"cannot write {self.path}", (finding,))
