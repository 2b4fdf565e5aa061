"""A kept result that contradicts its own evidence is refused as invalid evidence."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from conftest import ROOT
from gatekit.report.schema import StageReport, StageState
from gatekit.run.consistency import contradictions
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
        # The threshold decides nothing.
        "threshold": {"name": "upstream's", "holds": False},
    }
    return StageReport(
        name="gsm8k",
        title="a stage",
        state=StageState.PASS,
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


# Per case: the edit, and what the finding says, expects and found.
CASES: dict[str, tuple[Callable[[Document], object], str, str, str]] = {
    "a part that fails": (
        lambda result: compared(result).update(verdict="fail"),
        "step compare has exit code 0 but a part that fails",
        "results[0].compared without verdict fail", '"verdict" fail',
    ),
    "a control that does not hold": (
        lambda result: compared(result)["controls"][0].update(holds=False),
        "step compare has exit code 0 but a part that fails",
        "results[0].compared.controls[0] without holds false", '"holds" false',
    ),
    "a finding": (
        lambda result: result["evidence"]["run"].update(findings=[{"what": "wrong"}]),
        "step run has exit code 0 but a part that fails",
        "the report without findings", '"findings"',
    ),
    "cases that are not right": (
        lambda result: compared(result).update(cases=7, right=6),
        "but a part that fails", "without right 6 of 7 cases", '"right" 6 of 7',
    ),
    "a step that failed": (
        lambda result: result["evidence"]["compare"].update(exit_code=1),
        "the result is pass but its evidence is not",
        '"state" fail, the state of step compare', "pass",
    ),
    "a step that was not run": (
        lambda result: result["evidence"].pop("run"),
        "the result is a pass but its evidence is not", '"evidence" of step run',
        "compare",
    ),
    "a step without an exit code": (
        lambda result: result["evidence"]["compare"].pop("exit_code"),
        "the evidence of step compare is not a verb's report", '"exit_code"',
        "verb, findings, results",
    ),
    "an exit code that is a boolean": (
        lambda result: result["evidence"]["compare"].update(exit_code=False),
        "the evidence of step compare is not a verb's report", '"exit_code"', "verb",
    ),
    "evidence that is not a table": (
        lambda result: result["evidence"].update(compare=[]),
        "the evidence of step compare is not a verb's report", '"verb"', "not a table",
    ),
    "a reason": (
        lambda result: result.update(reason="compare: 3 findings"),
        "the result is a pass but gives a reason against it",
        'a pass without "reason"', "compare: 3 findings",
    ),
    "findings beside a pass": (
        lambda result: result.update(findings=[{"what": "the patch does harm"}]),
        "the result is a pass but gives a reason against it",
        'and "findings"', "the patch does harm",
    ),
    "another state than its step's": (
        lambda result: (
            result["evidence"]["compare"].update(exit_code=1),
            result.update(state="inconclusive", reason="compare: why"),
        ),
        "the result is inconclusive but its evidence is not",
        '"state" fail, the state of step compare', "inconclusive",
    ),
    "an end before its start": (
        lambda result: result.update(seconds=-3.0),
        "the stage ends before it starts", '"seconds" 0 or more', "-3",
    ),
    "no start": (
        lambda result: result.update(started=-1),
        "the stage has no start", '"started"', "-1",
    ),
    "more answers than questions": (
        lambda result: compared(result)["patched"]["runs"][0].update(answered=101),
        "step compare: counts do not add up",
        'compared.patched.runs[0].answered" 0 to 100', "101",
    ),
    "more right than answered": (
        lambda result: compared(result)["patched"]["runs"][1].update(correct=101),
        "step compare: counts do not add up", 'runs[1].correct" 0 to 100', "101",
    ),
    "another accuracy": (
        lambda result: compared(result)["patched"].update(accuracy=0.95),
        "step compare: counts do not add up",
        'compared.patched.accuracy" 0.91 (182 of 200)', "0.95",
    ),
    "another difference": (
        lambda result: compared(result)["score"].update(difference=0.0),
        "step compare: counts do not add up",
        'score.difference" -0.02 (3 gained, 5 lost)', "0.0",
    ),
    "a difference out of its interval": (
        lambda result: compared(result)["score"].update(upper=-0.03),
        "step compare: counts do not add up", 'difference" -0.05 to -0.03', "-0.02",
    ),
}  # fmt: skip


def said(document: Document) -> list[Finding]:
    return list(contradictions(msgspec.convert(document, StageReport), STEPS))


def test_real_results_are_accepted() -> None:
    document = msgspec.to_builtins(whole())
    assert said(document) == []
    for code, state in ((1, "fail"), (4, "inconclusive"), (3, "fail")):
        other = copy.deepcopy(document) | {"state": state, "reason": "compare: why"}
        other["evidence"]["compare"]["exit_code"] = code
        compared(other)["verdict"] = "fail"
        assert said(other) == []
    # A run's own report: failed requests have no answer.
    run = {"questions": 4, "answered": 0, "correct": 0, "resumed": 0, "failed": 3}
    document["evidence"]["run"]["results"] = [run]
    assert said(document) == []
    # A stage that stops early has no evidence of its later steps.
    early = copy.deepcopy(document) | {"state": "inconclusive", "reason": "run: why"}
    del early["evidence"]["compare"]
    assert said(early) == []


@pytest.mark.parametrize("name", CASES)
def test_contradictory_result(name: str) -> None:
    change, what, expected, found = CASES[name]
    document = msgspec.to_builtins(whole())
    change(document)
    findings = said(document)
    assert any(
        what in one.what and expected in str(one.expected) and found in str(one.found)
        for one in findings
    ), findings


@pytest.mark.parametrize("field", StageReport.__struct_fields__)
def test_result_with_a_missing_field(field: str, tmp_path: Path) -> None:
    """The gate writes every field, so a default would be invented."""
    store = Store(tmp_path)
    report = whole()
    with store.working(report.name, report.key):
        store.keep(report)
    path = store.result_file(report.name, report.key)
    document = json.loads(path.read_text("utf-8"))
    assert store.known(report.name, report.key) == report
    del document[field]
    path.write_text(json.dumps(document), encoding="utf-8")
    with pytest.raises(InputError) as caught:
        store.known(report.name, report.key)
    last = caught.value.message.splitlines()[-1]
    assert f'{path} is not a stage\'s result: "{field}": expected' in last
    assert last.endswith("found no such field")


def test_runner_refuses_contradictory_result(tmp_path: Path) -> None:
    """The runner reads the stage's earlier result."""
    profile = load("cpu")
    pipeline = Pipeline(profile, subject(ROOT, profile), Store(tmp_path))
    report = msgspec.structs.replace(
        whole(), name="verify", key=pipeline.keys["verify"], evidence={}
    )
    steps = [step for step in pipeline.stages["verify"].steps if step.reports]
    report_of_verb = {"verb": "verify", "exit_code": 0, "findings": [], "results": []}
    for wrong in (False, True):
        evidence = {
            step.name: report_of_verb | {"cases": 7, "right": 7 - wrong}
            for step in steps
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
        path = str(pipeline.store.result_file("verify", report.key))
        assert path in caught.value.message
        assert "expected" in caught.value.message and "found" in caught.value.message
        for finding in caught.value.findings:
            assert finding.path == path
            assert finding.expected and finding.found and finding.next_step
