"""A result set: one run over the questions, ours or plain sgl-eval's.

Ours is a folder with ``run.json`` (what was asked, of what, how), ``answers.jsonl``
and, once every question is answered, ``records.jsonl``. sgl-eval's is a folder with
``metrics.json`` and a file of answers for each repeat, each of which is a run.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import msgspec

from gatekit.gsm8k.answers import Answer, read_answers
from gatekit.gsm8k.consistency import (
    NEEDED,
    Metrics,
    of_answers,
    of_asked,
    of_metrics,
    unequal,
)
from gatekit.gsm8k.questions import QuestionFile
from gatekit.records import runs as records
from gatekit.records.fields import Misfit, decoded, decoded_with_nan, misfit
from overlaykit.core.documents import to_json
from overlaykit.core.errors import EnvironmentFailure, Finding, InputError
from overlaykit.core.files import write_whole

ARMS = BASELINE, PATCHED = "baseline", "patched"
RUN, ANSWERS, RECORDS = "run.json", "answers.jsonl", "records.jsonl"
_METRICS = "metrics.json"
OWN_PROMPT = "sgl-eval's own"
_T = TypeVar("_T")


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What both arms must share, beside the questions. ``gen`` is what sgl-eval sends
    with each request, under its own names; ``prompt`` its own, or another's digest."""

    model: str
    sgl_eval: str
    prompt: str
    gen: dict[str, object]


class RunFile(msgspec.Struct, frozen=True, kw_only=True):
    """What a run of ours set out to do; written first, never changed."""

    arm: str
    settings: Settings
    files: tuple[QuestionFile, ...]
    asked: tuple[str, ...]
    origin: records.Origin


class AccuracyRun(records.Record, frozen=True, kw_only=True, tag="gsm8k"):
    """A finished run, for the gate's report. ``seconds`` are those of its last session,
    ``resumed`` says how many answers it found already written."""

    run: RunFile
    answers: str  # sha256 of the answers, sorted by id
    correct: int
    truncated: int
    silent: int
    resumed: int


@dataclass(frozen=True)
class ResultSet:
    """A run's answers by id, and what it says of itself. sgl-eval's own says neither
    its arm, nor its questions' files, nor what was served."""

    path: str
    settings: Settings
    answers: dict[str, Answer]
    asked: int
    arm: str = ""
    origin: records.Origin = field(default_factory=records.Origin)
    files: tuple[QuestionFile, ...] = ()
    ids: frozenset[str] | None = None  # of the questions set out, where recorded
    mark: str = ""  # which no two runs share, where there is one
    altered: str = ""  # what is no longer as its record says
    contradictions: tuple[str, ...] = ()  # of its totals and its answers

    @property
    def answered(self) -> int:
        """How many of the questions set out."""
        if self.ids is None:
            return len(self.answers)
        return len(self.ids & self.answers.keys())

    @property
    def failed(self) -> int:
        return sum(not answer.answered for answer in self.answers.values())

    @property
    def correct(self) -> int:
        return sum(answer.symbolic_correct for answer in self.answers.values())


def load_results(path: Path) -> list[ResultSet]:
    """The run or runs in a folder. Raises InputError, EnvironmentFailure."""
    if (path / RUN).is_file():
        return [_ours(path)]
    if (path / _METRICS).is_file():
        return _plain(path)
    step = f"give a folder with {RUN} (ours) or {_METRICS} (sgl-eval's)"
    finding = Finding("holds no result set", path=str(path), next_step=step)
    raise InputError(f"{path} is no run of GSM8K: {step}", (finding,))


def _ours(path: Path) -> ResultSet:
    run = read_run(path)
    there = (path / ANSWERS).exists()
    answers = read_answers(path / ANSWERS, torn_end=True) if there else []
    found = {answer.id: answer for answer in answers}
    asked = frozenset(run.asked)
    record = read_record(path)
    return ResultSet(
        path=str(path),
        settings=run.settings,
        answers=found,
        asked=len(asked),
        arm=run.arm,
        origin=run.origin,
        files=run.files,
        ids=asked,
        mark=repr(record.started) if record else "",
        altered=" ".join(altered(record, run, answers)) if record else "",
        contradictions=(
            *of_asked(run.asked, sum(file.questions for file in run.files), found),
            *of_answers(answers, run.settings.gen),
        ),
    )


def read_record(path: Path) -> AccuracyRun | None:
    """Of a finished run; None of one that is not. Raises InputError."""
    found = records.read(path / RECORDS, AccuracyRun)
    if len(found) > 1:
        raise InputError(f"{path / RECORDS} holds {len(found)} runs, not one")
    return found[0] if found else None


def altered(
    record: AccuracyRun, run: RunFile, answers: Collection[Answer]
) -> tuple[str, ...]:
    """The file that is not as it was when the run was finished, and how; nothing, and
    all is."""
    if record.run != run:
        return (RUN,)
    if record.answers != answers_digest(answers):
        return (ANSWERS,)
    counts = {
        "arm": (run.arm, record.arm),
        "origin": (run.origin, record.origin),
        "correct": (sum(one.symbolic_correct for one in answers), record.correct),
        "truncated": (sum(one.truncated for one in answers), record.truncated),
        "silent": (sum(one.silent for one in answers), record.silent),
        "resumed": (min(max(record.resumed, 0), len(answers)), record.resumed),
    }
    for name, (expected, found) in counts.items():
        for what in unequal(name, expected, found):
            return (RECORDS, f"({what})")
    return ()


def read_run(path: Path) -> RunFile:
    return _read(path / RUN, RUN, lambda data: decoded(data, RunFile))


def write_run(path: Path, run: RunFile) -> None:
    """Whole or not at all. Raises EnvironmentFailure."""
    write_whole(path / RUN, to_json(run).decode())


def _plain(path: Path) -> list[ResultSet]:
    metrics = _read(path / _METRICS, _METRICS, _metrics)
    if metrics.name != "gsm8k":
        raise InputError(f"{path} is a run of {metrics.name}, not of gsm8k")
    if metrics.n_repeats < 1:
        raise InputError(f"{path} holds no repeat of a run")
    prompt = digest(metrics.prompt.yaml.encode()) if metrics.prompt else OWN_PROMPT
    settings = Settings(
        model=metrics.model,
        sgl_eval=metrics.sgl_eval_version,
        prompt=prompt,
        gen=metrics.gen,
    )
    asked = metrics.planned_examples or metrics.num_examples
    files = [path / f"output-rs{repeat}.jsonl" for repeat in range(metrics.n_repeats)]
    repeats = [read_answers(file, torn_end=False) for file in files]
    whole = tuple(f"{one} of {_METRICS}" for one in of_metrics(metrics, repeats))
    return [
        ResultSet(
            str(file),
            settings,
            {one.id: one for one in answers},
            asked,
            # Its lines hold the times of every request.
            mark=digest(file.read_bytes()),
            contradictions=(*whole, *of_answers(answers, metrics.gen)),
        )
        for file, answers in zip(files, repeats, strict=True)
    ]


def _metrics(data: bytes) -> Metrics:
    """Python writes what is no number as a word."""
    try:
        return decoded_with_nan(data.decode(), Metrics, NEEDED)
    except UnicodeDecodeError as error:
        raise misfit(error) from error


def digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def answers_digest(answers: Iterable[Answer]) -> str:
    """Of the answers in the order of their ids: that of a file is no two runs' same."""
    ordered = sorted(answers, key=lambda answer: answer.id)
    return digest(msgspec.json.encode(ordered))


def _read(path: Path, name: str, decode: Callable[[bytes], _T]) -> _T:
    try:
        return decode(path.read_bytes())
    except OSError as error:
        raise EnvironmentFailure(f"cannot read {path}: {error.strerror}") from error
    except Misfit as error:
        step = f"restore {name} as the run wrote it, or make the run anew"
        head = f"{path} is not what it should be"
        raise error.refusal(head, path, step) from error
