"""The contents of the reports, in order, and the facts about the whole run."""

from __future__ import annotations

from collections.abc import Iterable

from gatekit.report.answers import gsm8k
from gatekit.report.attention import attention
from gatekit.report.documents import Built
from gatekit.report.evidence import Kind, find_evidence, stands_in
from gatekit.report.points import serving
from gatekit.report.projection import chain
from gatekit.report.schema import GateReport, StageReport, StageState
from gatekit.report.section import Section, duration, utc_time
from gatekit.report.trees import census, landing, numeric

_BUILT = Kind("rebuild", "base", Built, "image of an arm")
# The section with a stage's figures; other stages have no figures.
SHOWN_IN = {
    "apply": "landing",
    "verify": "census",
    "numeric": "numeric",
    "chain": "chain",
    "gsm8k": "gsm8k",
    "traces": "attention",
    "bench": "bench",
}


def sections(report: GateReport) -> tuple[Section, ...]:
    """All sections, the most important for a pull request first."""
    makers = (gsm8k, attention, serving, chain, numeric, landing, census)
    return tuple(make(report) for make in makers)


def reasons(report: GateReport) -> tuple[str, ...]:
    """The reasons for the verdict, without the stages that did not run."""
    apart = {
        f"{stage.name}: {stage.state.value}: {stage.reason}"
        for stage in report.stages
        if stage.state is StageState.NOT_RUN
    }
    return tuple(reason for reason in report.reasons if reason not in apart)


def left_out(report: GateReport) -> dict[str, str]:
    """Stages that did not run, with the reason."""
    return _grouped(
        (stage.name, stage.reason or "no reason was given")
        for stage in report.stages
        if stage.state is StageState.NOT_RUN
    )


def ran_on_stand_in(report: GateReport) -> dict[str, str]:
    """Stages that ran on a stand-in, with the stand-in."""
    named = ((stage.name, stands_in(stage)) for stage in report.stages)
    return _grouped((name, what) for name, what in named if what)


def _grouped(texts: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Texts by the names of all stages that share them."""
    names: dict[str, list[str]] = {}
    for name, what in texts:
        names.setdefault(what, []).append(name)
    return {", ".join(same): what for what, same in names.items()}


def time_taken(stage: StageReport) -> str:
    return "-" if stage.state is StageState.NOT_RUN else duration(stage.seconds)


def about_the_run(report: GateReport) -> dict[str, str]:
    """Digests and names of everything that was tested."""
    subject = report.subject
    return {
        "profile": subject.profile,
        "profile's file": subject.profile_sha256 or "not recorded",
        "overlay": subject.overlay,
        "series": subject.series,
        "code": subject.code,
        "commit": subject.commit or "not a clone",
        **{f"package {name}": sha for name, sha in subject.packages.items()},
        "image": subject.image or "none",
        **_images(report),
        "model": ", ".join(dict.fromkeys(s.model for s in report.stages if s.model))
        or "no model was served",
        "started": utc_time(report.started),
        "took": duration(report.seconds),
    }


def _images(report: GateReport) -> dict[str, str]:
    """The digests of each arm's image and of its base, because tags may move."""
    found = find_evidence(report, "rebuild", _BUILT).found
    return {
        name: what or "not recorded"
        for one in found
        for name, what in (
            (f"{one.arm} built from", one.base),
            (f"{one.arm} image", one.id),
        )
    }


def ran_on(report: GateReport) -> dict[str, dict[str, str]]:
    """Machine and versions, by the stages that ran there; under "" if all ran on the
    machine of the report. Stages and report may come from different nodes."""
    found: list[tuple[dict[str, str], list[str]]] = []
    for stage in report.stages:
        if stage.state is StageState.NOT_RUN:
            continue
        facts = {**stage.machine, **stage.versions}
        stages = next((names for one, names in found if one == facts), None)
        if stages is None:
            found.append((facts, stages := []))
        stages.append(stage.name)
    own = {**report.machine, **report.versions}
    if all(facts == own for facts, _ in found):
        return {"": own}
    by_stage = {
        ", ".join(names): facts or {"": "not recorded"} for facts, names in found
    }
    return {**by_stage, "this report": own}
