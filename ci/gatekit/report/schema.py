"""``report.json``: everything that the other two reports show, and nothing they add.

A stage's own evidence stays as its verb wrote it (``evidence``: the verb's ``--json``
document by the step's name), so that a figure has one home and one format.
"""

from __future__ import annotations

from enum import Enum
from typing import Any, Literal

import msgspec

from overlaykit.core.errors import Finding


class StageState(Enum):
    """What became of a stage. Only PASS counts for a pass of the whole."""

    PASS = "pass"
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"
    ERROR = "error"
    NOT_RUN = "not run"


class StageReport(msgspec.Struct, frozen=True, kw_only=True):
    """One stage. ``reason`` says why it is not a pass; ``stands_in`` names what ran in
    place of the real thing, and is shown wherever the stage is. ``model`` is the digest
    of the model that was served; ``machine`` and ``versions`` are those that it ran
    with, which need not be the report's."""

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
    """What was judged, by digests: the overlay's lock, this repository's code, the
    profile, and the packages or the image that the series was put on."""

    overlay: str
    series: str
    code: str
    commit: str
    profile: str
    profile_sha256: str = ""
    packages: dict[str, str]
    image: str = ""


class GateReport(msgspec.Struct, frozen=True, kw_only=True):
    """The whole run. ``machine`` and ``versions`` are those that the report was written
    with, and are shown as they are."""

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
        """Raises ValueError for a pass that is none, whoever wrote it."""
        real = {(s.state, s.stands_in) for s in self.stages} == {(StageState.PASS, "")}
        if self.verdict is StageState.PASS and not real:
            raise ValueError(
                "a pass needs stages, and every one of them passed, on the real thing"
            )

    def stage(self, name: str) -> StageReport | None:
        """The stage of that name, if the run knows of it."""
        return next((stage for stage in self.stages if stage.name == name), None)
