"""``ci/gsm8k.py run``."""

from __future__ import annotations

from argparse import Namespace

from sgl_eval.types import GenConfig

from gatekit.gsm8k.running import RunRequest, run
from gatekit.gsm8k.sampling import Endpoint
from gatekit.records import origins, urls
from gatekit.records import runs as records
from overlaykit.cli import ROOT, Report, Result
from overlaykit.core.errors import Exit, Finding, InputError


class RunResult(Result, frozen=True, kw_only=True):
    """The state of a run. ``failed`` counts failed requests of this call."""

    arm: str
    model: str
    questions: int
    answered: int
    correct: int
    resumed: int
    failed: int


def call(arguments: Namespace) -> Report:
    """Start or resume a run; invalid while a question is unanswered."""
    wanted = RunRequest(
        arm=arguments.arm,
        sources=arguments.questions,
        first=arguments.first,
        gen=GenConfig(
            max_tokens=arguments.max_tokens,
            seed=0,
            chat_template_kwargs=dict(arguments.chat_template_kwarg) or None,
        ),
        endpoint=Endpoint(
            url=urls.checked("--url", arguments.url),
            model=arguments.model,
            api_key=arguments.api_key,
            threads=arguments.threads,
            timeout_s=arguments.timeout,
            tries=arguments.tries,
            prompt=arguments.prompt,
        ),
        origin=_origin(arguments),
        cache=ROOT / "build" / "gsm8k",
    )
    ran = run(wanted, arguments.out)
    session = ran.session
    result = RunResult(
        target="gsm8k",
        tree=str(arguments.out),
        outcome="incomplete" if ran.open else "complete",
        arm=arguments.arm,
        model=ran.run.settings.model,
        questions=len(ran.run.asked),
        answered=len(ran.answers),
        correct=sum(answer.symbolic_correct for answer in ran.answers),
        resumed=ran.resumed,
        failed=session.failed if session else 0,
    )
    code, message = Exit.DONE, f"complete: {result.questions} answered"
    findings = []
    if session and ran.open:
        code = Exit.INTERRUPTED if session.interrupted else Exit.INVALID
        message = (
            f"{'interrupted' if session.interrupted else 'invalid'}: {ran.open} of "
            f"{result.questions} are unanswered; run the same command again to resume"
        )
        findings = [
            Finding(f"{count} time(s): {reason}", path=arguments.url)
            for reason, count in session.failures.most_common(3)
        ]
        if session.gave_up:
            step = "check that the server is up, then run the same command again"
            findings.append(
                Finding(
                    "stopped asking: too many requests in a row failed",
                    arguments.url,
                    next_step=step,
                )
            )
    return Report(
        verb="gsm8k",
        exit_code=code,
        message=message,
        results=(result,),
        findings=tuple(findings),
    )


def _origin(arguments: Namespace) -> records.Origin:
    tree, series = arguments.tree, arguments.series
    if arguments.source:
        if tree or series:
            raise InputError("--source cannot be combined with --tree or --series")
        read = origins.of_trees(arguments.source, ROOT)
        tree, series = read.tree, read.series
    return records.Origin(
        tree=tree,
        series=series,
        image=arguments.image,
        command=records.command_digest(arguments.server_command),
    )


def show(report: Report) -> str:
    (one,) = report.results
    if not isinstance(one, RunResult) or not one.answered:
        return ""
    return (
        f"{one.arm}: {one.correct} of {one.answered} right, {one.resumed} resumed  "
        f"({one.tree})"
    )
