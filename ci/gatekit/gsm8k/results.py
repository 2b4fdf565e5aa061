"""A result set: one run over the questions, ours or plain sgl-eval's.

Ours is a folder with ``run.json`` (arm, settings, questions, origin), ``answers.jsonl``
and, once every question is answered, ``records.jsonl``. sgl-eval's is a folder with
``metrics.json`` and one answer file per repeat; each repeat is a run.
"""

from __future__ import annotations

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
from overlaykit.core.digests import sha256
from overlaykit.core.documents import to_json
from overlaykit.core.errors import EnvironmentFailure, Finding, InputError
from overlaykit.core.files import write_whole

ARMS = BASELINE, PATCHED = "baseline", "patched"
RUN, ANSWERS, RECORDS = "run.json", "answers.jsonl", "records.jsonl"
_METRICS = "metrics.json"
OWN_PROMPT = "sgl-eval's own"
_T = TypeVar("_T")


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What both arms must share besides the questions. ``gen`` holds the parameters
    that sgl-eval sends with each request; ``prompt`` is ``OWN_PROMPT`` or a digest."""

    model: str
    sgl_eval: str
    prompt: str
    gen: dict[str, object]


class RunFile(msgspec.Struct, frozen=True, kw_only=True):
    """The plan of a run, written before the first question and never changed."""

    arm: str
    settings: Settings
    files: tuple[QuestionFile, ...]
    asked: tuple[str, ...]
    origin: records.Origin


class AccuracyRun(records.Record, frozen=True, kw_only=True, tag="gsm8k"):
    """A finished run, for the gate's report. ``seconds`` is the duration of its last
    session; ``resumed`` counts the answers that were written before that."""

    run: RunFile
    answers: str  # sha256 of the answers, sorted by id
    correct: int
    truncated: int
    silent: int
    resumed: int


@dataclass(frozen=True)
class ResultSet:
    """A run's answers by id, and what it records. Plain sgl-eval records neither the
    arm, nor the question files, nor what was served."""

    path: str
    settings: Settings
    answers: dict[str, Answer]
    asked: int
    arm: str = ""
    origin: records.Origin = field(default_factory=records.Origin)
    files: tuple[QuestionFile, ...] = ()
    ids: frozenset[str] | None = None  # of the planned questions, if recorded
    mark: str = ""  # unique to the run, if there is one
    altered: str = ""  # the file that no longer matches the record
    contradictions: tuple[str, ...] = ()  # between its totals and its answers

    @property
    def answered(self) -> int:
        """The number of planned questions with an answer."""
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
    finding = Finding("contains no result set", path=str(path), next_step=step)
    raise InputError(f"{path} is not a GSM8K run: {step}", (finding,))


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
    """The record of a finished run; None if it is not finished. Raises InputError."""
    found = records.read(path / RECORDS, AccuracyRun)
    if len(found) > 1:
        raise InputError(f"{path / RECORDS} contains {len(found)} runs, expected one")
    return found[0] if found else None


def altered(
    record: AccuracyRun, run: RunFile, answers: Collection[Answer]
) -> tuple[str, ...]:
    """The file that changed after the run finished, and how. Empty if none did."""
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
    """Write the plan atomically. Raises EnvironmentFailure."""
    write_whole(path / RUN, to_json(run).decode())


def _plain(path: Path) -> list[ResultSet]:
    metrics = _read(path / _METRICS, _METRICS, _metrics)
    if metrics.name != "gsm8k":
        raise InputError(f"{path} is a run of {metrics.name}, expected gsm8k")
    if metrics.n_repeats < 1:
        raise InputError(f"{path} contains no repeats")
    prompt = sha256(metrics.prompt.yaml.encode()) if metrics.prompt else OWN_PROMPT
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
            # Unique, because its lines contain the time of every request.
            mark=sha256(file.read_bytes()),
            contradictions=(*whole, *of_answers(answers, metrics.gen)),
        )
        for file, answers in zip(files, repeats, strict=True)
    ]


def _metrics(data: bytes) -> Metrics:
    """Python writes NaN and Infinity, which are not JSON."""
    try:
        return decoded_with_nan(data.decode(), Metrics, NEEDED)
    except UnicodeDecodeError as error:
        raise misfit(error) from error


def answers_digest(answers: Iterable[Answer]) -> str:
    """Digest of the answers sorted by id, because their order differs between runs."""
    ordered = sorted(answers, key=lambda answer: answer.id)
    return sha256(msgspec.json.encode(ordered))


def _read(path: Path, name: str, decode: Callable[[bytes], _T]) -> _T:
    try:
        return decode(path.read_bytes())
    except OSError as error:
        raise EnvironmentFailure(f"cannot read {path}: {error.strerror}") from error
    except Misfit as error:
        step = f"restore {name} as the run wrote it, or repeat the run"
        head = f"{path} is not a valid {name}"
        raise error.refusal(head, path, step) from error
