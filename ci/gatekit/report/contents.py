"""All that the reports show, in order; and what they say of the run as a whole."""

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
# Which section shows a stage's figures; others have no figures.
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
    """What a reader of a pull request asks for first comes first."""
    makers = (gsm8k, attention, serving, chain, numeric, landing, census)
    return tuple(make(report) for make in makers)


def reasons(report: GateReport) -> tuple[str, ...]:
    """Of the verdict; what was not run is told apart from them."""
    apart = {
        f"{stage.name}: {stage.state.value}: {stage.reason}"
        for stage in report.stages
        if stage.state is StageState.NOT_RUN
    }
    return tuple(reason for reason in report.reasons if reason not in apart)


def left_out(report: GateReport) -> dict[str, str]:
    """What was not run, and why. Nothing of it is known."""
    return _together(
        (stage.name, stage.reason or "no reason was given")
        for stage in report.stages
        if stage.state is StageState.NOT_RUN
    )


def ran_on_stand_in(report: GateReport) -> dict[str, str]:
    """What ran on something else than it is about, and on what."""
    told = ((stage.name, stands_in(stage)) for stage in report.stages)
    return _together((name, what) for name, what in told if what)


def _together(told: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Stages of which the same is to be said are named in one line."""
    names: dict[str, list[str]] = {}
    for name, what in told:
        names.setdefault(what, []).append(name)
    return {", ".join(same): what for what, same in names.items()}


def time_taken(stage: StageReport) -> str:
    return "-" if stage.state is StageState.NOT_RUN else duration(stage.seconds)


def about_the_run(report: GateReport) -> dict[str, str]:
    """Digests and names of everything that was judged."""
    subject = report.subject
    return {
        "profile": subject.profile,
        "profile's file": subject.profile_sha256 or "not told",
        "overlay": subject.overlay,
        "series": subject.series,
        "code": subject.code,
        "commit": subject.commit or "not a clone",
        **{f"package {name}": sha for name, sha in subject.packages.items()},
        "image": subject.image or "none",
        **_images(report),
        "model": ", ".join(dict.fromkeys(s.model for s in report.stages if s.model))
        or "none was served",
        "started": utc_time(report.started),
        "took": duration(report.seconds),
    }


def _images(report: GateReport) -> dict[str, str]:
    """A tag may move: what each arm was really built from, and came to."""
    found = find_evidence(report, "rebuild", _BUILT).found
    return {
        name: what or "not told"
        for one in found
        for name, what in (
            (f"{one.arm} built from", one.base),
            (f"{one.arm} image", one.id),
        )
    }


def ran_on(report: GateReport) -> dict[str, dict[str, str]]:
    """Machine and versions, by the stages that ran there; by no name where it is one
    machine for all. Stages of one run may have been several nodes', and the report
    another's."""
    found: list[tuple[dict[str, str], list[str]]] = []
    for stage in report.stages:
        if stage.state is StageState.NOT_RUN:
            continue
        told = {**stage.machine, **stage.versions}
        place = next((names for one, names in found if one == told), None)
        if place is None:
            found.append((told, place := []))
        place.append(stage.name)
    own = {**report.machine, **report.versions}
    if all(told == own for told, _ in found):
        return {"": own}
    by_stage = {", ".join(names): told or {"": "not told"} for told, names in found}
    return {**by_stage, "this report": own}
