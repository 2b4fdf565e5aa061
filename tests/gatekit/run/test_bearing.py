"""A kept result that its own parts contradict is invalid evidence, by name."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from conftest import ROOT
from gatekit.report.schema import StageReport, State
from gatekit.run.consistency import against
from gatekit.run.pipeline import Pipeline
from gatekit.run.profile import load
from gatekit.run.runner import Runner
from gatekit.run.store import Store
from gatekit.run.subject import subject
from overlaykit.core.errors import Exit, Finding, InputError, InvalidEvidence

Document = dict[str, Any]
STEPS = [("run", False), ("compare", True)]
RUN = {"questions": 100, "answered": 100, "correct": 90, "truncated": 4, "silent": 2,
       "failed": 0}  # fmt: skip
ARM = {"runs": [RUN, RUN | {"correct": 92}], "accuracy": 0.91, "truncated": 0.04,
       "silent": 0.02}  # fmt: skip
SCORE = {"questions": 100, "gained": 3.0, "lost": 5.0, "difference": -0.02,
         "lower": -0.05, "upper": 0.01}  # fmt: skip
CHECK = {"name": "a control", "holds": True}


def whole() -> StageReport:
    compared = {
        "verdict": "pass",
        "baseline": copy.deepcopy(ARM),
        "patched": copy.deepcopy(ARM),
        "controls": [dict(CHECK)],
        "score": dict(SCORE),
        # It decides nothing.
        "threshold": {"name": "upstream's", "holds": False},
    }
    return StageReport(
        name="gsm8k",
        title="a stage",
        state=State.PASS,
        key="0123456789abcdef",
        started=1790000000.0,
        seconds=12.5,
        evidence={
            "run": {"verb": "gsm8k", "exit_code": 0, "results": [{"outcome": "done"}]},
            "compare": {
                "verb": "gsm8k",
                "exit_code": 0,
                "findings": [],
                "results": [{"target": "gsm8k", "compared": compared}],
            },
        },
    )


def compared(document: Document) -> Document:
    found: Document = document["evidence"]["compare"]["results"][0]["compared"]
    return found


# What is changed; what is said of it, the field and what it must be, and what it is.
CASES: dict[str, tuple[Callable[[Document], object], str, str, str]] = {
    "a part that fails": (
        lambda told: compared(told).update(verdict="fail"),
        "step compare says exit code 0 beside a part that fails",
        "results[0].compared without verdict fail", '"verdict" fail',
    ),
    "a control that does not hold": (
        lambda told: compared(told)["controls"][0].update(holds=False),
        "step compare says exit code 0 beside a part that fails",
        "results[0].compared.controls[0] without holds false", '"holds" false',
    ),
    "a finding": (
        lambda told: told["evidence"]["run"].update(findings=[{"what": "wrong"}]),
        "step run says exit code 0 beside a part that fails",
        "the report without findings", '"findings"',
    ),
    "cases that are not right": (
        lambda told: compared(told).update(cases=7, right=6),
        "beside a part that fails", "without right 6 of 7 cases", '"right" 6 of 7',
    ),
    "a step that failed": (
        lambda told: told["evidence"]["compare"].update(exit_code=1),
        "it says pass, and its evidence does not",
        '"state" fail, as step compare came to', "pass",
    ),
    "a step that was not run": (
        lambda told: told["evidence"].pop("run"),
        "it says pass, and its evidence does not", '"evidence" of step run', "compare",
    ),
    "a step without an exit code": (
        lambda told: told["evidence"]["compare"].pop("exit_code"),
        "the evidence of step compare is no report of a verb", '"exit_code"',
        "verb, findings, results",
    ),
    "an exit code that is false": (
        lambda told: told["evidence"]["compare"].update(exit_code=False),
        "the evidence of step compare is no report of a verb", '"exit_code"', "verb",
    ),
    "evidence that is none": (
        lambda told: told["evidence"].update(compare=[]),
        "the evidence of step compare is no report of a verb", '"verb"', "no table",
    ),
    "a reason": (
        lambda told: told.update(reason="compare: 3 findings"),
        "it says pass, and why it is none", 'no "reason"', "compare: 3 findings",
    ),
    "findings beside a pass": (
        lambda told: told.update(findings=[{"what": "the patch does harm"}]),
        "it says pass, and why it is none", 'no "findings"', "the patch does harm",
    ),
    "another state than its step's": (
        lambda told: (
            told["evidence"]["compare"].update(exit_code=1),
            told.update(state="inconclusive", reason="compare: why"),
        ),
        "it says inconclusive, and its evidence does not",
        '"state" fail, as step compare came to', "inconclusive",
    ),
    "an end before its start": (
        lambda told: told.update(seconds=-3.0),
        "it ends before it starts", '"seconds" 0 or more', "-3",
    ),
    "no start": (
        lambda told: told.update(started=-1), "it has no start", '"started"', "-1"
    ),
    "more answers than questions": (
        lambda told: compared(told)["patched"]["runs"][0].update(answered=101),
        "step compare: counts do not add up",
        'compared.patched.runs[0].answered" 0 to 100', "101",
    ),
    "more right than answered": (
        lambda told: compared(told)["patched"]["runs"][1].update(correct=101),
        "step compare: counts do not add up", 'runs[1].correct" 0 to 100', "101",
    ),
    "another accuracy": (
        lambda told: compared(told)["patched"].update(accuracy=0.95),
        "step compare: counts do not add up",
        'compared.patched.accuracy" 0.91 (182 of 200)', "0.95",
    ),
    "another difference": (
        lambda told: compared(told)["score"].update(difference=0.0),
        "step compare: counts do not add up",
        'score.difference" -0.02 (3 gained, 5 lost)', "0.0",
    ),
    "a difference out of its interval": (
        lambda told: compared(told)["score"].update(upper=-0.03),
        "step compare: counts do not add up", 'difference" -0.05 to -0.03', "-0.02",
    ),
}  # fmt: skip


def said(document: Document) -> list[Finding]:
    return list(against(msgspec.convert(document, StageReport), STEPS))


def test_what_ran_is_believed() -> None:
    document = msgspec.to_builtins(whole())
    assert said(document) == []
    for code, state in ((1, "fail"), (4, "inconclusive"), (3, "fail")):
        other = copy.deepcopy(document) | {"state": state, "reason": "compare: why"}
        other["evidence"]["compare"]["exit_code"] = code
        compared(other)["verdict"] = "fail"
        assert said(other) == []
    # A run's own report: of three requests that failed none is an answer.
    run = {"questions": 4, "answered": 0, "correct": 0, "resumed": 0, "failed": 3}
    document["evidence"]["run"]["results"] = [run]
    assert said(document) == []
    # A step that ends early leaves no evidence of those after it.
    early = copy.deepcopy(document) | {"state": "inconclusive", "reason": "run: why"}
    del early["evidence"]["compare"]
    assert said(early) == []


@pytest.mark.parametrize("name", CASES)
def test_a_result_that_its_parts_contradict(name: str) -> None:
    change, what, expected, found = CASES[name]
    document = msgspec.to_builtins(whole())
    change(document)
    findings = said(document)
    assert any(
        what in one.what and expected in str(one.expected) and found in str(one.found)
        for one in findings
    ), findings


@pytest.mark.parametrize("field", StageReport.__struct_fields__)
def test_a_result_without_a_field(field: str, tmp_path: Path) -> None:
    """The gate writes them all: a default in its place would be made up."""
    store = Store(tmp_path)
    report = whole()
    with store.working(report.name, report.key):
        store.keep(report)
    path = store.place(report.name, report.key)
    told = json.loads(path.read_text("utf-8"))
    assert store.known(report.name, report.key) == report
    del told[field]
    path.write_text(json.dumps(told), encoding="utf-8")
    with pytest.raises(InputError) as caught:
        store.known(report.name, report.key)
    last = caught.value.message.splitlines()[-1]
    assert f'{path} is not a stage\'s result: "{field}": expected' in last
    assert last.endswith("found no such field")


def test_the_gate_takes_no_such_result(tmp_path: Path) -> None:
    """By the runner, which asks for what a stage came to before."""
    profile = load("cpu")
    pipeline = Pipeline(profile, subject(ROOT, profile), Store(tmp_path))
    report = msgspec.structs.replace(
        whole(), name="verify", key=pipeline.keys["verify"], evidence={}
    )
    steps = [step for step in pipeline.stages["verify"].steps if step.reports]
    told = {"verb": "verify", "exit_code": 0, "findings": [], "results": []}
    for wrong in (False, True):
        evidence = {
            step.name: told | {"cases": 7, "right": 7 - wrong} for step in steps
        }
        with pipeline.store.working("verify", report.key):
            pipeline.store.keep(msgspec.structs.replace(report, evidence=evidence))
        runner = Runner(pipeline, ["verify"])
        if not wrong:
            assert runner.known("verify") is not None
            continue
        with pytest.raises(InvalidEvidence) as caught:
            runner.known("verify")
        assert caught.value.exit_code is Exit.INVALID
        path = str(pipeline.store.place("verify", report.key))
        assert path in caught.value.message
        assert "expected" in caught.value.message and "found" in caught.value.message
        for finding in caught.value.findings:
            assert finding.path == path
            assert finding.expected and finding.found and finding.next_step
