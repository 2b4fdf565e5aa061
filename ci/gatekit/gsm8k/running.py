"""Start or resume a run: plan, existing answers, remaining questions."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import sgl_eval
from sgl_eval.types import GenConfig

from gatekit.gsm8k.answers import Answer, AnswerLog, read_answers
from gatekit.gsm8k.prompts import prompt_digest
from gatekit.gsm8k.questions import Question, load
from gatekit.gsm8k.results import (
    ANSWERS,
    RECORDS,
    RUN,
    AccuracyRun,
    RunFile,
    Settings,
    altered,
    answers_digest,
    read_record,
    read_run,
    write_run,
)
from gatekit.gsm8k.sampling import FIXES, Endpoint, EndpointSampler, Session
from gatekit.records import runs as records
from overlaykit.core.errors import Finding, InputError
from overlaykit.core.locks import folder_locked

_MORE = "lower --first, or give more files: `--questions test train` has 8,792"


@dataclass(frozen=True)
class RunRequest:
    """The options of a run."""

    arm: str
    sources: Sequence[str]
    first: int | None
    gen: GenConfig
    endpoint: Endpoint
    origin: records.Origin
    cache: Path


@dataclass(frozen=True)
class RunStatus:
    """The state of a run. ``session`` is None if no question was left."""

    run: RunFile
    answers: list[Answer]
    resumed: int
    session: Session | None

    @property
    def open(self) -> int:
        return len(self.run.asked) - len(self.answers)


def run(wanted: RunRequest, out: Path) -> RunStatus:
    """Start or resume the run in this folder.

    Raises InputError if the folder contains another run, EnvironmentFailure if the
    server does not respond or the folder is in use.
    """
    questions, files = load(wanted.sources, wanted.cache, FIXES)
    if wanted.first is not None and wanted.first > len(questions):
        raise InputError(
            f"there are {len(questions)} questions, not {wanted.first}",
            (Finding("too few questions", ", ".join(wanted.sources), next_step=_MORE),),
        )
    questions = questions[: wanted.first]
    sampler = EndpointSampler(wanted.endpoint)
    settings = Settings(
        model=sampler.model,
        sgl_eval=sgl_eval.__version__,
        prompt=prompt_digest(wanted.endpoint.prompt),
        gen=asdict(wanted.gen),
    )
    asked = tuple(question.id for question in questions)
    this = RunFile(
        arm=wanted.arm,
        settings=settings,
        files=files,
        asked=asked,
        origin=wanted.origin,
    )
    # Two runs at once would ask the same questions.
    with folder_locked(out / "lock"):
        if (out / RUN).exists():
            _refuse_another(read_run(out), this, out)
        else:
            write_run(out, this)
        record = read_record(out)
        before = _answered(out / ANSWERS, questions)
        if record:
            _refuse_altered(record, this, before, out)
        left = [question for question in questions if question.id not in before]
        started = time.time()
        session = None
        if left:
            with AnswerLog(out / ANSWERS) as log:
                session = sampler.ask(left, wanted.gen, log)
        answers = list(_answered(out / ANSWERS, questions).values())
        ran = RunStatus(this, answers, len(before), session)
        if not ran.open and not record:
            _record(out, ran, started)
    return ran


def _record(out: Path, ran: RunStatus, started: float) -> None:
    records.append(
        out / RECORDS,
        AccuracyRun(
            arm=ran.run.arm,
            origin=ran.run.origin,
            started=started,
            seconds=ran.session.seconds if ran.session else 0.0,
            run=ran.run,
            answers=answers_digest(ran.answers),
            correct=sum(answer.symbolic_correct for answer in ran.answers),
            truncated=sum(answer.truncated for answer in ran.answers),
            silent=sum(answer.silent for answer in ran.answers),
            resumed=ran.resumed,
        ),
    )


def _refuse_another(there: RunFile, this: RunFile, out: Path) -> None:
    findings = tuple(
        Finding(
            f"different {name}",
            path=str(out / RUN),
            expected=_short(getattr(there, name)),
            found=_short(getattr(this, name)),
            next_step="give another --out, or the options of the first call",
        )
        for name in RunFile.__struct_fields__
        if getattr(there, name) != getattr(this, name)
    )
    if findings:
        raise InputError(f"{out} contains another run", findings)


def _refuse_altered(
    record: AccuracyRun, this: RunFile, before: dict[str, Answer], out: Path
) -> None:
    """A finished run is never resumed: the result would mix two runs."""
    if name := altered(record, this, before.values()):
        what = " ".join(["differs from the record", *name[1:]])
        finding = Finding(what, str(out / name[0]), next_step="give another --out")
        raise InputError(f"{out} was changed after the run finished", (finding,))


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 300 else f"{text[:300]}..."


def _answered(path: Path, questions: Sequence[Question]) -> dict[str, Answer]:
    if not path.exists():
        return {}
    texts = {question.id: question.problem for question in questions}
    found = {answer.id: answer for answer in read_answers(path, torn_end=True)}
    for answer in found.values():
        if texts.get(answer.id) != answer.problem or not answer.answered:
            raise InputError(
                f"{path}: {answer.id} does not answer the question of that id"
            )
    return found
