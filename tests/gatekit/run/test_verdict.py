"""The verdict over any stages: PASS requires every stage to have run and passed."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gatekit.report.schema import GateReport, StageReport, StageState, Subject
from gatekit.run.verdict import EXITS, verdict
from overlaykit.core.errors import Exit

STAGES = st.lists(
    st.builds(
        StageReport,
        name=st.sampled_from(["apply", "verify", "gsm8k", "bench:8/8/4"]),
        title=st.just("a stage"),
        state=st.sampled_from(StageState),
        reason=st.sampled_from(["", "why"]),
        stands_in=st.sampled_from(["", "a small model"]),
    ),
    max_size=6,
)
SUBJECT = Subject(overlay="", series="", code="", commit="", profile="", packages={})
SERVED = [
    StageReport(name=name, title="a stage", state=StageState.PASS, model=model)
    for name, model in (("gsm8k", "1"), ("bench:8/8/4", "2"), ("apply", ""))
]
PASSED = StageReport(name="apply", title="a stage", state=StageState.PASS)


@given(STAGES)
@example([])
@example([PASSED])
def test_pass_requires_every_stage_to_pass_on_the_real_thing(
    stages: list[StageReport],
) -> None:
    state, reasons = verdict(stages)
    good = {(s.state, s.stands_in) for s in stages} == {(StageState.PASS, "")}
    assert (state is StageState.PASS) == good == (not reasons)
    assert (EXITS[state] is Exit.DONE) == good


def test_two_models_are_inconclusive() -> None:
    """Several nodes may share the stages, each with its own model."""
    state, (reason,) = verdict(SERVED)
    assert state is StageState.INCONCLUSIVE
    assert "gsm8k 1" in reason and "bench:8/8/4 2" in reason
    assert verdict([SERVED[0], SERVED[2]]) == (StageState.PASS, ())


@given(STAGES)
def test_a_failure_is_never_hidden(stages: list[StageReport]) -> None:
    state, reasons = verdict(stages)
    states = {stage.state for stage in stages}
    assert (state is StageState.FAIL) == (StageState.FAIL in states)
    if state is not StageState.FAIL:
        assert (state is StageState.ERROR) == (StageState.ERROR in states)
    for stage in stages:
        if stage.state is not StageState.PASS:
            assert any(r.startswith(f"{stage.name}: ") for r in reasons)


@given(STAGES, st.randoms())
def test_order_does_not_matter(stages: list[StageReport], random: object) -> None:
    assert hasattr(random, "sample")
    shuffled = random.sample(stages, len(stages))
    assert verdict(shuffled)[0] is verdict(stages)[0]


@given(STAGES)
def test_false_pass_cannot_be_written(stages: list[StageReport]) -> None:
    """The report's type refuses it, also when it is read from a file."""
    state, reasons = verdict(stages)
    report = GateReport(
        profile="", about="", verdict=state, reasons=reasons, started=0, seconds=0,
        command="", subject=SUBJECT, machine={}, versions={}, stages=tuple(stages),
    )  # fmt: skip
    data = msgspec.json.encode(report)
    assert msgspec.json.decode(data, type=GateReport) == report
    forged = msgspec.to_builtins(report) | {"verdict": "pass"}
    if {(stage.state, stage.stands_in) for stage in stages} == {(StageState.PASS, "")}:
        return
    with pytest.raises(
        msgspec.ValidationError, match="every stage to have run and passed"
    ):
        msgspec.convert(forged, GateReport)
