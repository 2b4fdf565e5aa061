"""The schema of ``report.json``, which has everything that the other two reports show.

``evidence`` holds each verb's ``--json`` document unchanged, by the step's name, so
that every figure has one place and one format.
"""

from __future__ import annotations

from enum import Enum
from typing import Any, Literal

import msgspec

from overlaykit.core.errors import Finding


class StageState(Enum):
    """The state of a stage. The whole run passes only if every stage is PASS."""

    PASS = "pass"
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"
    ERROR = "error"
    NOT_RUN = "not run"


class StageReport(msgspec.Struct, frozen=True, kw_only=True):
    """One stage. ``reason`` says why it did not pass. ``stands_in`` names the stand-in
    that ran instead of the real thing; reports show it next to the stage. ``model`` is
    the digest of the served model. ``machine`` and ``versions`` are those of the
    stage's run, which may differ from the report's."""

    name: str
    title: str
    state: StageState
    reason: str = ""
    stands_in: str = ""
    model: str = ""
    key: str = ""
    folder: str = ""
    started: float = 0
    seconds: float = 0
    commands: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()
    evidence: dict[str, Any] = {}
    files: tuple[str, ...] = ()
    machine: dict[str, str] = {}
    versions: dict[str, str] = {}


class Subject(msgspec.Struct, frozen=True, kw_only=True):
    """What was tested, by digests: the overlay's lock, this repository's code, the
    profile, and the packages or the image that the series was applied to."""

    overlay: str
    series: str
    code: str
    commit: str
    profile: str
    profile_sha256: str = ""
    packages: dict[str, str]
    image: str = ""


class GateReport(msgspec.Struct, frozen=True, kw_only=True):
    """The whole run. ``machine`` and ``versions`` are those of the program that wrote
    the report."""

    schema: Literal[1] = 1
    profile: str
    about: str
    verdict: StageState
    reasons: tuple[str, ...]
    started: float
    seconds: float
    command: str
    subject: Subject
    machine: dict[str, str]
    versions: dict[str, str]
    stages: tuple[StageReport, ...]

    def __post_init__(self) -> None:
        """PASS requires every stage to have run and passed. Raises ValueError."""
        real = {(s.state, s.stands_in) for s in self.stages} == {(StageState.PASS, "")}
        if self.verdict is StageState.PASS and not real:
            raise ValueError(
                "PASS requires every stage to have run and passed, on the real thing"
            )

    def stage(self, name: str) -> StageReport | None:
        """The stage with that name, or None if the run has no such stage."""
        return next((stage for stage in self.stages if stage.name == name), None)
