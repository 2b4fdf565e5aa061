"""Which stage is submitted when: as soon as all that it needs is over, and well."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import msgspec

from gatekit.run.job import in_a_job
from gatekit.run.submission import NOT_RUN, Gate, Planned, read_report
from overlaykit.cli import ROOT, Result, say

LOST = "error"
_BLOCKS = ("fail", "error", NOT_RUN)
_SAY_EVERY_S = 300
_STOP_S = 60


class Job(Protocol):
    """What is used of a submitit job."""

    job_id: str
    paths: Any

    def done(self) -> bool: ...
    def result(self) -> Any: ...
    def cancel(self) -> None: ...


class Submits(Protocol):
    """What is used of a submitit executor."""

    def submit(self, call: Any, *arguments: Any) -> Job: ...


class StageJob(Result, frozen=True, kw_only=True, omit_defaults=True):
    """One stage. ``tree`` is the job's log; ``wave`` when it could begin at the
    earliest."""

    needs: tuple[str, ...] = ()
    reason: str = ""
    job: str = ""
    wave: int = 0
    command: tuple[str, ...] = ()


@dataclass
class Cluster:
    """Submits what is ready, and waits. ``outcomes`` has what is over."""

    gate: Gate
    executor: Submits
    stages: Mapping[str, Planned]
    images: Sequence[Sequence[str]]
    poll_s: float
    outcomes: dict[str, StageJob] = field(default_factory=dict)
    jobs: dict[str, Job] = field(default_factory=dict)

    def run(self) -> None:
        """All stages; whatever ends this ends the jobs that were submitted."""
        said = time.monotonic()
        try:
            while len(self.outcomes) < len(self.stages):
                changed = self._settle() or self._submit() or self._collect()
                if changed:
                    continue
                if time.monotonic() - said > _SAY_EVERY_S:
                    said = time.monotonic()
                    say(f"waiting for {', '.join(self.jobs)}")
                time.sleep(self.poll_s)
        except BaseException:
            self._cancel()
            raise

    def _settle(self) -> bool:
        """Stages that are never submitted, as far as that is known by now."""
        before = len(self.outcomes)
        for name, stage in self.stages.items():
            if name in self.outcomes or name in self.jobs:
                continue
            outcome, why = stage.before, stage.reason
            if outcome is None:
                failed = [need for need in stage.needs if self._blocks(need)]
                if not failed:
                    continue
                outcome, why = NOT_RUN, f"it needs {', '.join(failed)}"
            self._over(StageJob(target=name, tree="", outcome=outcome, reason=why))
        return len(self.outcomes) > before

    def _blocks(self, need: str) -> bool:
        """What the profile leaves out blocks nothing; the gate holds it so too."""
        over = self.outcomes.get(need)
        if over is None or self.stages[need].before == NOT_RUN:
            return False
        return over.outcome in _BLOCKS

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
            job = self.executor.submit(in_a_job, setup, keeper, command, str(ROOT))
            self.jobs[name] = job
            say(f"{name}: submitted as job {job.job_id}")
        return bool(ready)

    def _setup(self, name: str) -> Sequence[Sequence[str]]:
        """Images are a node's own: a job that serves makes them where it is, which
        takes a moment where they are."""
        return self.images if "rebuild" in self.stages[name].needs else ()

    def _collect(self) -> bool:
        done = [name for name, job in self.jobs.items() if job.done()]
        for name in done:
            self._over(self._outcome(name, self.jobs.pop(name)))
        return bool(done)

    def _outcome(self, name: str, job: Job) -> StageJob:
        log = str(job.paths.stderr)
        lost = StageJob(target=name, tree=log, outcome=LOST, job=job.job_id)
        try:
            report = read_report(job.result())
        except Exception as error:  # whatever befell the job, submitit raises its own
            reason = str(error).strip().splitlines() or [type(error).__name__]
            return msgspec.structs.replace(lost, reason=f"no result: {reason[0]}")
        if report is None:
            return msgspec.structs.replace(lost, reason="the gate gave no report")
        for one in report.results:
            if one.target == name:
                return msgspec.structs.replace(
                    lost, outcome=one.outcome, reason=one.reason
                )
        return msgspec.structs.replace(lost, reason=report.message)

    def _over(self, one: StageJob) -> None:
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
