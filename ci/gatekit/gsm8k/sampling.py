"""Ask the questions through sgl-eval's sampler, runner and grader.

This module closes gaps in sgl-eval. A failed request is not a wrong answer: it is not
written, and the question stays unanswered. Each answer is on disk before the next is
graded. The session stops when the server is down, instead of waiting for every
question. An interrupt ends requests that wait for a silent server; closing their
client, as sgl-eval does, does not wake them. A malformed reply (a list instead of text,
half a character) also counts as a failed request, because it could not be read back.
"""

from __future__ import annotations

import contextlib
import logging
import signal
import socket
import sys
import threading
import time
import weakref
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import httpx
import msgspec
import openai
from sgl_eval._vendored.nemo_skills.dataset.gsm8k.prepare import fixes
from sgl_eval._vendored.nemo_skills.evaluator.math import MathEvaluator
from sgl_eval.evals._math import make_sample_fn, make_score_one_fn
from sgl_eval.evals._prompts import vendored_prompt
from sgl_eval.runner import run_examples
from sgl_eval.sampler import ChatCompletionSampler
from sgl_eval.types import Example, GenConfig, Sample

from gatekit.gsm8k.answers import Answer, AnswerLog
from gatekit.gsm8k.questions import Question
from overlaykit.core.errors import EnvironmentFailure, Finding

FIXES: dict[str, object] = dict(fixes)
# Consecutive failures, beyond those in flight, that end the session.
_GIVE_UP_AFTER = 8
_SAY_EVERY_S = 10
_CONNECT_TIMEOUT_S = 30


@dataclass(frozen=True)
class Endpoint:
    """The server and its limits. ``tries`` are requests per question and session;
    ``timeout_s`` is how long a request waits without data. ``prompt`` is a file, or
    None for sgl-eval's own GSM8K prompt."""

    url: str
    model: str | None
    api_key: str
    threads: int
    timeout_s: float
    tries: int
    prompt: Path | None = None


@dataclass
class Session:
    """The outcome of one session. ``failures`` counts each reason."""

    answered: int = 0
    failed: int = 0
    gave_up: bool = False
    interrupted: bool = False
    failures: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0


class _Connections:
    """The open sockets. Shutting them down is the only way to wake a blocked read."""

    def __init__(self) -> None:
        self._sockets: weakref.WeakSet[socket.socket] = weakref.WeakSet()
        self._lock = threading.Lock()

    def watch(self, request: httpx.Request) -> None:
        request.extensions = {**request.extensions, "trace": self._trace}

    def _trace(self, event: str, info: dict[str, Any]) -> None:
        if event in (
            "connection.connect_tcp.complete",
            "connection.start_tls.complete",
        ):
            with self._lock:
                self._sockets.add(info["return_value"].get_extra_info("socket"))

    def shut_down(self) -> None:
        with self._lock:
            for one in list(self._sockets):
                with contextlib.suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)


class EndpointSampler:
    """Asks one endpoint. Raises EnvironmentFailure if a model is needed and the server
    lists none."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._connections = _Connections()
        timeout = httpx.Timeout(endpoint.timeout_s, connect=_CONNECT_TIMEOUT_S)
        self._http = httpx.Client(
            timeout=timeout,
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=None),
            event_hooks={"request": [self._connections.watch]},
        )
        client = openai.OpenAI(
            base_url=endpoint.url,
            api_key=endpoint.api_key,
            http_client=self._http,
            timeout=timeout,
            max_retries=0,
        )
        self._sampler = ChatCompletionSampler(
            base_url=endpoint.url,
            api_key=endpoint.api_key,
            model=endpoint.model or _first_model(client, endpoint.url),
            max_retries=endpoint.tries,
        )
        self._sampler.client = client

    @property
    def model(self) -> str:
        return str(self._sampler.model)

    def ask(
        self, questions: Sequence[Question], gen: GenConfig, log: AnswerLog
    ) -> Session:
        """Ask each question once. Questions whose requests fail stay unanswered."""
        session = Session()
        in_a_row = 0
        started = reported = time.monotonic()

        def scored(
            example: Example, _: int, sample: Sample, score: float, found: str | None
        ) -> None:
            nonlocal in_a_row, reported
            answer = _answer(example, sample, score, found)
            if answer.answered:
                self._keep(answer, log)
                session.answered += 1
                in_a_row = 0
            else:
                session.failed += 1
                in_a_row += 1
                if sample.finish_reason != "error":
                    session.failures[f"ended with {sample.finish_reason!r}"] += 1
                if in_a_row >= _GIVE_UP_AFTER + self._endpoint.threads:
                    session.gave_up = True
                    self._abort()
            now = time.monotonic()
            done = session.answered + session.failed
            if now - reported >= _SAY_EVERY_S or done == len(questions):
                reported = now
                _say(session, done, len(questions))

        _say(session, 0, len(questions))
        examples = [
            Example(id=one.id, inputs={"problem": one.problem}, target=one.expected)
            for one in questions
        ]
        with (
            contextlib.closing(self._http),
            _on_signals(session, self._abort),
            _failures_to(session.failures),
        ):
            run_examples(
                "gsm8k",
                examples,
                self._sample(gen, session),
                make_score_one_fn(MathEvaluator(config={})),
                num_threads=self._endpoint.threads,
                progress=False,
                on_sample_scored=scored,
            )
        session.seconds = time.monotonic() - started
        return session

    def _sample(
        self, gen: GenConfig, session: Session
    ) -> Callable[[Example, int], Sample]:
        """sgl-eval's own function, except that malformed replies are failed
        requests."""
        prompt = self._endpoint.prompt or vendored_prompt("math")
        ask = make_sample_fn(self._sampler, gen, prompt)

        def sample(example: Example, repeat: int) -> Sample:
            found: Sample = ask(example, repeat)
            if fault := _fault(found):
                session.failures[fault] += 1
                return Sample(text="", finish_reason="error")
            return found

        return sample

    def _keep(self, answer: Answer, log: AnswerLog) -> None:
        try:
            log.write(answer)
        except EnvironmentFailure:
            # Otherwise sgl-eval asks all remaining questions before it raises the
            # error.
            self._abort()
            raise

    def _abort(self) -> None:
        self._sampler.abort()
        self._connections.shut_down()


class _Reply(msgspec.Struct):
    """The fields of a reply that are stored, with the types they must have."""

    text: str
    finish_reason: str | None
    completion_tokens: int | None
    prompt_tokens: int | None
    reasoning_tokens: int | None
    reasoning_content: str | None
    model: str | None


def _model(sample: Sample) -> Any:
    """The model named in the reply; a router may use another than requested."""
    return getattr(sample.raw, "model", None)


def _fault(sample: Sample) -> str:
    """Why the reply is malformed; empty if it is not."""
    fields = {name: getattr(sample, name, None) for name in _Reply.__struct_fields__}
    fields["model"] = _model(sample)
    try:
        msgspec.json.decode(msgspec.json.encode(fields), type=_Reply)
    except (TypeError, ValueError, RecursionError) as error:
        return f"malformed reply: {error}"[:200]
    return ""


def _first_model(client: openai.OpenAI, url: str) -> str:
    try:
        return msgspec.convert(client.models.list().data[0].id, str)
    # The client accepts any 200 response, even an HTML page.
    except (
        *(openai.OpenAIError, msgspec.ValidationError),
        *(AttributeError, LookupError, TypeError, ValueError),
    ) as error:
        finding = Finding(
            f"the server lists no model: {error}",
            path=url,
            next_step="start the server, give its URL with the path, usually /v1, "
            "or give the model with --model",
        )
        raise EnvironmentFailure(
            "the server does not respond as expected", (finding,)
        ) from error


def _answer(
    example: Example, sample: Sample, score: float, found: str | None
) -> Answer:
    return Answer(
        id=example.id,
        problem=example.inputs["problem"],
        expected_answer=str(example.target),
        generation=sample.text,
        finish_reason=sample.finish_reason,
        predicted_answer=found,
        symbolic_correct=bool(score),
        num_generated_tokens=sample.completion_tokens or 0,
        prompt_tokens=sample.prompt_tokens,
        model=_model(sample),
        reasoning_content=sample.reasoning_content,
    )


def _say(session: Session, done: int, total: int) -> None:
    failed = f", {session.failed} failed" if session.failed else ""
    print(f"gsm8k: {done}/{total}{failed}", file=sys.stderr, flush=True)


@contextlib.contextmanager
def _on_signals(session: Session, abort: Any) -> Iterator[None]:
    """The first interrupt ends the session cleanly; a second one has its usual
    effect."""
    before: dict[signal.Signals, Any] = {}

    def interrupt(_signal: int, _frame: FrameType | None) -> None:
        session.interrupted = True
        restore()
        abort()

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        before[number] = signal.signal(number, interrupt)
    try:
        yield
    finally:
        restore()


class _Reasons(logging.Handler):
    def __init__(self, reasons: Counter[str]) -> None:
        super().__init__(logging.WARNING)
        self._reasons = reasons

    def emit(self, record: logging.LogRecord) -> None:
        if record.args:
            error = record.args[-1] if isinstance(record.args, tuple) else record.args
            self._reasons[f"{type(error).__name__}: {error}"[:200]] += 1


@contextlib.contextmanager
def _failures_to(reasons: Counter[str]) -> Iterator[None]:
    """sgl-eval reports the reason of a failed request only in its log."""
    log = logging.getLogger("sgl_eval.sampler")
    handler, propagate = _Reasons(reasons), log.propagate
    log.addHandler(handler)
    log.propagate = False
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.propagate = propagate
