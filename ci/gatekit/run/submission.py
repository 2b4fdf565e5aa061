"""Calls the gate as a program and reads its reports."""

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
    """The fields of a gate's result that are used here."""

    target: str
    outcome: str
    needs: tuple[str, ...] = ()
    reason: str = ""
    commands: tuple[str, ...] = ()

    @property
    def before(self) -> str | None:
        """The outcome of an earlier run, or NOT_RUN if the profile leaves the stage
        out; None if the stage must run."""
        if self.outcome == NOT_RUN:
            return NOT_RUN
        return self.outcome[len(_DONE) :] if self.outcome.startswith(_DONE) else None


class GateReport(msgspec.Struct, frozen=True):
    """The fields of a gate's report that are used here."""

    exit_code: Exit
    message: str = ""
    results: tuple[Planned, ...] = ()
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True)
class Gate:
    """The gate with one profile and run directory."""

    profile: str
    out: Path
    questions: tuple[str, ...]

    def command(self, *more: str) -> list[str]:
        words = [sys.executable, str(ROOT / "ci" / "gate.py")]
        words += ["--profile", self.profile, "--out", str(self.out), *more, "--json"]
        return [*words, "--questions", *self.questions] if self.questions else words

    def images(self) -> list[list[str]]:
        """The commands that build the arms' images, if the arms are images. Uses an
        empty run directory, because the gate omits the commands of finished stages."""
        elsewhere = replace(self, out=self.out / "no such run")
        return [
            shlex.split(line)
            for stage in elsewhere.call("--dry-run").results
            for line in stage.commands
            if "ci/rebuild.py container" in line
        ]

    def call(self, *more: str) -> GateReport:
        """Run the gate and return its report. Raises InputError, InvalidEvidence (also
        for a report that contradicts itself) and EnvironmentFailure."""
        command = self.command(*more)
        try:
            done = subprocess.run(
                command, cwd=ROOT, stdout=subprocess.PIPE, check=False
            )
        except OSError as error:
            raise not_started(command[0], error) from error
        report = read_report(done.stdout)
        if report is None:
            raise EnvironmentFailure(
                "ci/gate.py printed no report; see its output above"
            )
        if report.exit_code is Exit.USAGE:
            raise InputError(report.message, report.findings)
        if report.exit_code is Exit.INVALID and not report.results:
            raise InvalidEvidence(report.message, report.findings)
        _refuse_contradiction(report)
        return report


def _refuse_contradiction(report: GateReport) -> None:
    """Raises InvalidEvidence if the gate passes although a stage did not."""
    for one in report.results:
        if report.exit_code is Exit.DONE and one.outcome in _NO_PASS:
            finding = Finding(
                "the gate passes although a stage did not",
                path=one.target,
                expected='"outcome" pass, or another "exit_code" than 0',
                found=one.outcome,
                next_step="run ci/gate.py by hand, with --only report",
            )
            raise InvalidEvidence(
                f"ci/gate.py contradicts itself: {one.target}: expected pass with exit "
                f"code 0, found {one.outcome}",
                (finding,),
            )


def read_report(output: bytes) -> GateReport | None:
    """The report in the gate's output, or None if there is none."""
    try:
        return from_json(output, GateReport)
    except msgspec.DecodeError:
        return None
