"""A stage's evidence, found by what it is, or the words that say why there is none."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import msgspec

from gatekit.report.schema import GateReport, StageReport, StageState

T = TypeVar("T")


@dataclass(frozen=True)
class Kind(Generic[T]):
    """One kind of result: which verb prints it, by which member it is told from the
    verb's others, and what a reader calls it."""

    verb: str
    member: str
    type: type[T]
    what: str


@dataclass(frozen=True)
class Evidence(Generic[T]):
    """What a stage has to show. ``missing`` says, in a reader's words, what it has
    not, and why; where it is empty, all of it was read."""

    stage: StageReport | None
    found: tuple[T, ...]
    missing: tuple[str, ...]

    @property
    def stands_in(self) -> str:
        """Nothing stands in for what did not run."""
        return stands_in(self.stage) if self.stage else ""


def find_evidence(report: GateReport, name: str, kind: Kind[T]) -> Evidence[T]:
    """All results of that kind in the stage. A stage that did not run has none, even
    where something of the sort lies about."""
    stage = report.stage(name)
    if stage is None or stage.state is StageState.NOT_RUN:
        return Evidence(stage, (), (not_run(name, stage),))
    found: list[T] = []
    missing: list[str] = []
    for step, document in stage.evidence.items():
        try:
            found += _of(document, kind)
        except (TypeError, msgspec.ValidationError) as error:
            missing.append(f"The evidence of step {step} cannot be read: {error}.")
    if not found and not missing:
        missing.append(f"No {kind.what}: the stage left none.")
    return Evidence(stage, tuple(found), tuple(missing))


def stands_in(stage: StageReport) -> str:
    return "" if stage.state is StageState.NOT_RUN else stage.stands_in


def not_run(name: str, stage: StageReport | None) -> str:
    if stage is None:
        return f"Not run: this run of the gate has no stage {name}."
    return f"Not run: {stage.reason or 'no reason was given'}."


def _of(document: Any, kind: Kind[T]) -> list[T]:
    """Raises TypeError or ValidationError for what no verb prints."""
    if not isinstance(document, dict) or not isinstance(document.get("verb"), str):
        raise TypeError("it is no report of a verb")
    results = document.get("results")
    if document["verb"] != kind.verb:
        return []
    if not isinstance(results, list) or not all(isinstance(r, dict) for r in results):
        raise TypeError("it has no list of results")
    return [msgspec.convert(r, kind.type) for r in results if kind.member in r]
