"""Runs stages one after the other and reports the result of each."""

from __future__ import annotations

import textwrap
import time
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from gatekit.process.launcher import free_port, remove, run, serving
from gatekit.process.probe import tail
from gatekit.records.stage import Serve, Stage, Step, filled, placeholders
from gatekit.report.schema import StageReport, StageState
from gatekit.run.consistency import contradictions, state_of
from gatekit.run.model import model_digest
from gatekit.run.pipeline import Pipeline
from gatekit.run.subject import machine, versions
from overlaykit.cli import say
from overlaykit.core.documents import from_json
from overlaykit.core.errors import (
    EnvironmentFailure,
    Finding,
    InputError,
    InvalidEvidence,
)
from overlaykit.core.files import write_whole
from overlaykit.core.wording import pasteable

_SHORT = 120
_MODEL = "model.sha256"
_BLOCKS = (StageState.FAIL, StageState.ERROR)


class Runner:
    """Runs the stages in ``wanted`` and the stages they need. Earlier results of the
    stages in ``rerun`` are ignored."""

    def __init__(
        self, pipeline: Pipeline, wanted: Iterable[str], rerun: Iterable[str] = ()
    ) -> None:
        self._pipeline = pipeline
        self._rerun = set(rerun)
        self.wanted = self._with_needs(wanted)
        self.reports: dict[str, StageReport] = {}

    def _with_needs(self, wanted: Iterable[str]) -> set[str]:
        found, queue = set[str](), list(wanted)
        while queue:
            name = queue.pop()
            if name not in found:
                found.add(name)
                stage = self._pipeline.stages[name]
                queue += () if stage.why_not else stage.needs
        return found

    @property
    def pending(self) -> list[str]:
        """Stages without a result; they will run unless a stage they need fails."""
        stages = self._pipeline.stages
        return [
            name
            for name in stages
            if name in self.wanted
            and not stages[name].why_not
            and self.known(name) is None
        ]

    def run(self) -> dict[str, StageReport]:
        """The report of every stage, including those that did not run."""
        for name, stage in self._pipeline.stages.items():
            self.reports[name] = self._report(name, stage)
        return self.reports

    def refuse_changed_model(self) -> None:
        """Refuse to continue with, or compare against, results of another model: the
        path may be the same when its contents have changed. Raises InputError."""
        now = model_digest(self._pipeline.profile.model)
        findings = []
        for name in self._pipeline.stages:
            path = self._pipeline.folder(name) / _MODEL
            if name in self._rerun or not now or not path.is_file():
                continue
            if (then := path.read_text(encoding="utf-8").strip()) != now:
                finding = Finding(
                    "the results are from another model",
                    path=str(path.parent),
                    expected=f"model {now}",
                    found=f"results of model {then}",
                    next_step=f"restore that model, choose another --out, or run with "
                    f"--from {name}",
                )
                findings.append(finding)
        if findings:
            raise InputError("the model has changed", tuple(findings))

    def known(self, name: str) -> StageReport | None:
        """The stage's earlier result, if there is one to use. Raises InvalidEvidence if
        the result contradicts itself, which no real run does."""
        if name in self._rerun:
            return None
        report = self._pipeline.store.known(name, self._pipeline.keys[name])
        if report is not None:
            stage = self._pipeline.stages[name]
            steps = [(step.name, step.decides) for step in stage.steps if step.reports]
            path = str(self._pipeline.store.result_file(name, report.key))
            step = "delete this file: the stage then runs again"
            if wrong := tuple(
                replace(one, path=path, next_step=step)
                for one in contradictions(report, steps)
            ):
                one = wrong[0]
                raise InvalidEvidence(
                    f"{path} was changed by hand: {one.what}: expected "
                    f"{one.expected}, found {one.found}",
                    wrong,
                )
        return report

    def _report(self, name: str, stage: Stage) -> StageReport:
        key = self._pipeline.keys[name]
        blank = StageReport(
            name=name,
            title=stage.title,
            state=StageState.NOT_RUN,
            stands_in=stage.stands_in,
            key=key,
            folder=str(self._pipeline.folder(name).relative_to(self._root)),
        )
        if stage.why_not:
            return msgspec.structs.replace(blank, reason=stage.why_not, folder="")
        if (known := self.known(name)) is not None:
            say(f"{name}: {known.state.value} (earlier result)")
            return known
        if name not in self.wanted:
            return msgspec.structs.replace(blank, reason=self._not_yet(name, key))
        if blocked := [n for n in stage.needs if self._blocks(n)]:
            reason = f"needs {', '.join(blocked)}"
            say(f"{name}: not run: {reason}")
            return msgspec.structs.replace(blank, reason=reason)
        return self._run(stage, blank)

    @property
    def _root(self) -> Path:
        return self._pipeline.store.root

    def _blocks(self, name: str) -> bool:
        report = self.reports[name]
        stage = self._pipeline.stages[name]
        blocked = report.state is StageState.NOT_RUN and not stage.why_not
        return report.state in _BLOCKS or blocked

    def _not_yet(self, name: str, key: str) -> str:
        others = self._pipeline.store.others(name, key)
        if not others:
            return "not run yet"
        return f"not run yet ({others} results for another series, code or profile)"

    def _run(self, stage: Stage, blank: StageReport) -> StageReport:
        say(f"{stage.name}: {stage.title}")
        with self._pipeline.store.working(
            stage.name, blank.key, fresh=stage.name in self._rerun
        ) as folder:
            (folder / "result.json").unlink(missing_ok=True)
            served = "model" in stage.inputs
            model = model_digest(self._pipeline.profile.model) if served else ""
            if model:
                write_whole(folder / _MODEL, f"{model}\n")
            steps = _Steps(stage, folder)
            started, clock = time.time(), time.monotonic()
            state, reason, findings = steps.run()
            report = msgspec.structs.replace(
                blank,
                state=state,
                reason=reason,
                model=model,
                started=started,
                seconds=round(time.monotonic() - clock, 1),
                commands=stage.lines(placeholders(folder, stage.port or "PORT")),
                findings=findings,
                evidence=steps.evidence,
                files=steps.files(),
                machine=machine(),
                versions=versions(),
            )
            self._pipeline.store.keep(report)
        say(f"{stage.name}: {state.value}{f': {reason}' if reason else ''}")
        return report


class _StepResult(NamedTuple):
    state: StageState
    reason: str
    findings: tuple[Finding, ...] = ()


class _Steps:
    """Runs the steps of one stage; stops at the first that does not pass."""

    def __init__(self, stage: Stage, folder: Path) -> None:
        self._stage, self._folder = stage, folder
        self.evidence: dict[str, Any] = {}

    def run(self) -> _StepResult:
        for step in self._stage.steps:
            try:
                result = self._step(step)
            except EnvironmentFailure as error:
                result = _StepResult(StageState.ERROR, error.message, error.findings)
            if result.state is not StageState.PASS:
                return result._replace(reason=f"{step.name}: {result.reason}")
        return _StepResult(StageState.PASS, "")

    def files(self) -> tuple[str, ...]:
        """Pages and pictures that the report lists."""
        found = (p for p in self._folder.rglob("*") if p.suffix in (".html", ".svg"))
        return tuple(sorted(str(p.relative_to(self._folder)) for p in found))

    def _step(self, step: Step) -> _StepResult:
        port = self._stage.port or free_port()
        known = placeholders(self._folder, port)
        command = tuple(filled(word, known) for word in step.command)
        log = self._folder / f"{step.name}.log"
        output = self._folder / f"{step.name}.json" if step.reports else None
        say(f"  {pasteable(command)}")
        with ExitStack() as stack:
            after = [tuple(filled(w, known) for w in words) for words in step.remove]
            for words in after:
                remove(words)
            server = None
            server_log = step.server_log(self._folder)
            if step.serve is not None:
                serve = _filled(step.serve, known, port)
                what = f"the server of {self._stage.name}, {step.name}"
                server = stack.enter_context(serving(serve, server_log, what, after))
                after = []
            code = run(command, step.environment, output, log, server, after)
            died = server.poll() if server is not None else None
        if died is not None:
            finding = Finding(
                "the server ended during the step",
                path=str(server_log),
                found=f"exit code {died}\n{tail(server_log)}".rstrip(),
                next_step="run the gate again: finished answers are kept",
            )
            return _StepResult(StageState.ERROR, "the server died", (finding,))
        return self._result(step, code, output, log)

    def _result(
        self, step: Step, code: int, output: Path | None, log: Path
    ) -> _StepResult:
        report: Mapping[str, Any] = {}
        if output is not None:
            try:
                report = from_json(output.read_bytes(), dict[str, Any])
            except (OSError, UnicodeDecodeError, msgspec.DecodeError):
                finding = Finding(
                    "the verb printed no report",
                    path=str(log),
                    found=f"exit code {code}\n{tail(log)}".rstrip(),
                )
                return _StepResult(StageState.ERROR, f"exit code {code}", (finding,))
            self.evidence[step.name] = report
        state = state_of(code, step.decides)
        said = str(report.get("message") or f"exit code {code}")
        found = msgspec.convert(report.get("findings", ()), tuple[Finding, ...])
        said = said.removeprefix(f"{state.value}: ")
        reason = _reason(said, found) if state is not StageState.PASS else ""
        if state is StageState.ERROR and not found:
            last = f"exit code {code}\n{tail(log)}".rstrip()
            found = (Finding("the command failed", path=str(log), found=last),)
        return _StepResult(state, reason, found)


def _reason(said: str, found: tuple[Finding, ...]) -> str:
    """One line: the verb's message, and its first finding with what was found. A
    message that is a whole sentence stands alone."""
    if not found or said.endswith("."):
        return said
    one = found[0]
    what = one.lines()[0].removeprefix(f"{said}: ")
    if one.site and one.site not in what:
        what = f"{one.site}: {what}"
    figure = textwrap.shorten(one.found or "", _SHORT, placeholder=" ...")
    return ": ".join(filter(None, (said, what, figure)))


def _filled(serve: Serve, known: Mapping[str, str], port: int) -> Serve:
    return Serve(
        tuple(filled(word, known) for word in serve.command),
        {name: filled(value, known) for name, value in serve.environment.items()},
        serve.health,
        serve.deadline_s,
        port,
    )
