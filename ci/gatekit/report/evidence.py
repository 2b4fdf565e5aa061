"""Finds a stage's evidence by its kind, or says why there is none."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import msgspec

from gatekit.report.schema import GateReport, StageReport, StageState
from gatekit.report.section import Drawing, Section, Table

T = TypeVar("T")


@dataclass(frozen=True)
class Kind(Generic[T]):
    """One kind of result: the verb that prints it, the member that only this kind has,
    its type, and its name in messages."""

    verb: str
    member: str
    type: type[T]
    what: str


@dataclass(frozen=True)
class Evidence(Generic[T]):
    """A stage's results. ``missing`` has sentences for the reader about what is missing
    and why; it is empty if everything was read."""

    stage: StageReport | None
    found: tuple[T, ...]
    missing: tuple[str, ...]

    @property
    def stands_in(self) -> str:
        """The stage's stand-in; none if the stage did not run."""
        return stands_in(self.stage) if self.stage else ""

    def section(
        self,
        name: str,
        title: str,
        said: Iterable[str],
        tables: Iterable[Table],
        drawings: Iterable[Drawing] = (),
        missing: Iterable[str] = (),
        stands_in: str | None = None,
    ) -> Section:
        """The section about these results; ``missing`` is what else is missing."""
        return Section(
            name,
            title,
            self.stage,
            self.stands_in if stands_in is None else stands_in,
            tuple(said),
            tuple(drawings),
            tuple(tables),
            (*self.missing, *missing),
        )


def find_evidence(report: GateReport, name: str, kind: Kind[T]) -> Evidence[T]:
    """All results of this kind in the stage. A stage that did not run has none, even if
    its report holds old evidence."""
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
        missing.append(f"No {kind.what}: the stage did not leave one.")
    return Evidence(stage, tuple(found), tuple(missing))


def stands_in(stage: StageReport) -> str:
    return "" if stage.state is StageState.NOT_RUN else stage.stands_in


def not_run(name: str, stage: StageReport | None) -> str:
    if stage is None:
        return f"Not run: this run of the gate has no stage {name}."
    return f"Not run: {stage.reason or 'no reason was given'}."


def _of(document: Any, kind: Kind[T]) -> list[T]:
    """Raises TypeError or ValidationError for a document that no verb prints."""
    if not isinstance(document, dict) or not isinstance(document.get("verb"), str):
        raise TypeError("it is not a verb's report")
    results = document.get("results")
    if document["verb"] != kind.verb:
        return []
    if not isinstance(results, list) or not all(isinstance(r, dict) for r in results):
        raise TypeError("it has no list of results")
    return [msgspec.convert(r, kind.type) for r in results if kind.member in r]
