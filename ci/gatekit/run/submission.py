"""How the gate is called from here, and what is read of its reports."""

from __future__ import annotations

import shlex
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from overlaykit.cli import ROOT
from overlaykit.core.documents import from_json
from overlaykit.core.errors import (
    EnvironmentFailure,
    Exit,
    Finding,
    InputError,
    InvalidEvidence,
    not_started,
)

WOULD_RUN, NOT_RUN = "would run", "not run"
_DONE = "done: "
_NO_PASS = ("fail", "error", "inconclusive")


class Planned(msgspec.Struct, frozen=True):
    """Of a result of the gate, what is needed here."""

    target: str
    outcome: str
    needs: tuple[str, ...] = ()
    reason: str = ""
    commands: tuple[str, ...] = ()

    @property
    def before(self) -> str | None:
        """What it came to in an earlier run, or that the profile leaves it out."""
        if self.outcome == NOT_RUN:
            return NOT_RUN
        return self.outcome[len(_DONE) :] if self.outcome.startswith(_DONE) else None


class GateReport(msgspec.Struct, frozen=True):
    """Of a report of the gate."""

    exit_code: Exit
    message: str = ""
    results: tuple[Planned, ...] = ()
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True)
class Gate:
    """How a job calls the gate."""

    profile: str
    out: Path
    questions: tuple[str, ...]

    def command(self, *more: str) -> list[str]:
        words = [sys.executable, str(ROOT / "ci" / "gate.py")]
        words += ["--profile", self.profile, "--out", str(self.out), *more, "--json"]
        return [*words, "--questions", *self.questions] if self.questions else words

    def images(self) -> list[list[str]]:
        """What makes the arms' images; nothing where they are no images. Asked of a run
        of its own: of one in which they were made the gate does not say it."""
        elsewhere = replace(self, out=self.out / "no such run")
        return [
            shlex.split(line)
            for stage in elsewhere.ask("--dry-run").results
            for line in stage.commands
            if "ci/rebuild.py container" in line
        ]

    def ask(self, *more: str) -> GateReport:
        """Its report, here and now. Raises InputError, also for results
        that contradict themselves, and EnvironmentFailure."""
        command = self.command(*more)
        try:
            done = subprocess.run(
                command, cwd=ROOT, stdout=subprocess.PIPE, check=False
            )
        except OSError as error:
            raise not_started(command[0], error) from error
        report = read_report(done.stdout)
        if report is None:
            raise EnvironmentFailure("ci/gate.py gave no report; what it said is above")
        if report.exit_code is Exit.USAGE:
            raise InputError(report.message, report.findings)
        if report.exit_code is Exit.INVALID and not report.results:
            raise InvalidEvidence(report.message, report.findings)
        _refuse_contradiction(report)
        return report


def _refuse_contradiction(report: GateReport) -> None:
    """Raises InvalidEvidence for a pass beside a stage that is none."""
    for one in report.results:
        if report.exit_code is Exit.DONE and one.outcome in _NO_PASS:
            finding = Finding(
                "a pass beside a stage that is none",
                path=one.target,
                expected='"outcome" pass, or another "exit_code" than 0',
                found=one.outcome,
                next_step="run ci/gate.py by hand, with --only report",
            )
            raise InvalidEvidence(
                f"ci/gate.py contradicts itself: {one.target}: expected pass beside "
                f"exit code 0, found {one.outcome}",
                (finding,),
            )


def read_report(said: bytes) -> GateReport | None:
    """None where it is no report."""
    try:
        return from_json(said, GateReport)
    except msgspec.DecodeError:
        return None
