"""Submits each stage as a job as soon as the stages it needs have finished."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import msgspec

from gatekit.run.job import run_in_job
from gatekit.run.submission import NOT_RUN, Gate, Planned, read_report
from overlaykit.cli import ROOT, Result, say

LOST = "error"
_BLOCKS = ("fail", "error", NOT_RUN)
_SAY_EVERY_S = 300
_STOP_S = 60


class Job(Protocol):
    """The part of a submitit job that is used here."""

    job_id: str
    paths: Any

    def done(self) -> bool: ...
    def result(self) -> Any: ...
    def cancel(self) -> None: ...


class Executor(Protocol):
    """The part of a submitit executor that is used here."""

    def submit(self, call: Any, *arguments: Any) -> Job: ...


class StageJob(Result, frozen=True, kw_only=True, omit_defaults=True):
    """The job of one stage. ``tree`` is the job's log; ``wave`` is the earliest round
    in which the stage can start."""

    needs: tuple[str, ...] = ()
    reason: str = ""
    job: str = ""
    wave: int = 0
    command: tuple[str, ...] = ()


@dataclass
class Cluster:
    """Submits jobs that are ready and waits for them. ``outcomes`` has finished
    ones."""

    gate: Gate
    executor: Executor
    stages: Mapping[str, Planned]
    images: Sequence[Sequence[str]]
    poll_s: float
    outcomes: dict[str, StageJob] = field(default_factory=dict)
    jobs: dict[str, Job] = field(default_factory=dict)

    def run(self) -> None:
        """Run all stages. If this is interrupted or fails, submitted jobs are
        cancelled."""
        said = time.monotonic()
        try:
            while len(self.outcomes) < len(self.stages):
                changed = self._skip() or self._submit() or self._collect()
                if changed:
                    continue
                if time.monotonic() - said > _SAY_EVERY_S:
                    said = time.monotonic()
                    say(f"waiting for {', '.join(self.jobs)}")
                time.sleep(self.poll_s)
        except BaseException:
            self._cancel()
            raise

    def _skip(self) -> bool:
        """Record stages that need no job: already done, left out or blocked."""
        before = len(self.outcomes)
        for name, stage in self.stages.items():
            if name in self.outcomes or name in self.jobs:
                continue
            outcome, why = stage.before, stage.reason
            if outcome is None:
                failed = [need for need in stage.needs if self._blocks(need)]
                if not failed:
                    continue
                outcome, why = NOT_RUN, f"needs {', '.join(failed)}"
            self._finish(StageJob(target=name, tree="", outcome=outcome, reason=why))
        return len(self.outcomes) > before

    def _blocks(self, need: str) -> bool:
        """Whether a needed stage blocks others. As in the gate, a stage that the
        profile leaves out does not."""
        finished = self.outcomes.get(need)
        if finished is None or self.stages[need].before == NOT_RUN:
            return False
        return finished.outcome in _BLOCKS

    def _submit(self) -> bool:
        ready = [
            name
            for name, stage in self.stages.items()
            if name not in self.outcomes
            and name not in self.jobs
            and all(need in self.outcomes for need in stage.needs)
        ]
        keeper = str(ROOT / "ci" / "gatekit" / "process" / "keeper.py")
        for name in ready:
            setup = self._setup(name)
            command = self.gate.command("--only", name)
            job = self.executor.submit(run_in_job, setup, keeper, command, str(ROOT))
            self.jobs[name] = job
            say(f"{name}: submitted as job {job.job_id}")
        return bool(ready)

    def _setup(self, name: str) -> Sequence[Sequence[str]]:
        """Each node has its own images, so a job that serves builds them first; this is
        quick if the node has them already."""
        return self.images if "rebuild" in self.stages[name].needs else ()

    def _collect(self) -> bool:
        done = [name for name, job in self.jobs.items() if job.done()]
        for name in done:
            self._finish(self._outcome(name, self.jobs.pop(name)))
        return bool(done)

    def _outcome(self, name: str, job: Job) -> StageJob:
        log = str(job.paths.stderr)
        lost = StageJob(target=name, tree=log, outcome=LOST, job=job.job_id)
        try:
            report = read_report(job.result())
        except Exception as error:  # submitit raises many types of error
            reason = str(error).strip().splitlines() or [type(error).__name__]
            return msgspec.structs.replace(lost, reason=f"no result: {reason[0]}")
        if report is None:
            return msgspec.structs.replace(lost, reason="the gate printed no report")
        for one in report.results:
            if one.target == name:
                return msgspec.structs.replace(
                    lost, outcome=one.outcome, reason=one.reason
                )
        return msgspec.structs.replace(lost, reason=report.message)

    def _finish(self, one: StageJob) -> None:
        self.outcomes[one.target] = msgspec.structs.replace(
            one, needs=self.stages[one.target].needs
        )
        say(f"{one.target}: {one.outcome}{f': {one.reason}' if one.reason else ''}")

    def _cancel(self) -> None:
        for name, job in self.jobs.items():
            say(f"{name}: cancelling job {job.job_id}")
            job.cancel()
        deadline = time.monotonic() + _STOP_S
        while time.monotonic() < deadline:
            if all(job.done() for job in self.jobs.values()):
                return
            time.sleep(0.2)
