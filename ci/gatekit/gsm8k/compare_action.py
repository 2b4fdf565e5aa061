"""``ci/gsm8k.py compare``."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from gatekit.gsm8k.comparison import ArmComparison, compare
from gatekit.gsm8k.pairing import CONTROLS
from gatekit.gsm8k.results import ARMS, load_results
from gatekit.gsm8k.sentences import sentence
from gatekit.gsm8k.text import comparison_text
from gatekit.records.checks import Verdict
from overlaykit.cli import Report, Result
from overlaykit.core.errors import Exit, Finding, InputError

_EXITS = {
    Verdict.PASS: Exit.DONE,
    Verdict.FAIL: Exit.FAILS,
    Verdict.INCONCLUSIVE: Exit.INVALID,
    Verdict.INVALID: Exit.INVALID,
}


class ComparisonResult(Result, frozen=True, kw_only=True):
    compared: ArmComparison
    sentence: str


def call(arguments: Namespace) -> Report:
    """Compare two arms."""
    arms = {
        arm: [one for path in getattr(arguments, arm) for one in load_results(path)]
        for arm in ARMS
    }
    places = [Path(one.path).resolve() for runs in arms.values() for one in runs]
    if len(set(places)) < len(places):
        raise InputError(
            "each run can be named only once: a run cannot be its own control"
        )
    if len(arms["baseline"]) != len(arms["patched"]):
        raise InputError(
            f"found {len(arms['baseline'])} baseline runs and {len(arms['patched'])} "
            "patched runs; expected as many patched runs as baseline runs"
        )
    compared = compare(arms["baseline"], arms["patched"], arguments.margin)
    result = ComparisonResult(
        target="gsm8k",
        tree=", ".join(map(str, arguments.patched)),
        outcome=compared.verdict.value,
        compared=compared,
        sentence=sentence(compared),
    )
    steps = {control.name: control.step for control in CONTROLS}
    return Report(
        verb="gsm8k",
        exit_code=_EXITS[compared.verdict],
        message=_message(compared),
        results=(result,),
        findings=tuple(
            Finding(
                f"does not hold: {check.name}",
                expected=check.expected,
                found=check.found,
                next_step=steps.get(check.name),
            )
            for check in compared.broken
        ),
    )


def _message(compared: ArmComparison) -> str:
    sentences = [sentence(compared)]
    if compared.self_comparison:
        sentences.append(
            "Both arms are the baseline, so this says nothing about the patch."
        )
    if compared.unlabelled:
        sentences.append(
            "Plain sgl-eval runs do not record their arm; it is taken on trust."
        )
    return " ".join(sentences)


def show(report: Report) -> str:
    (one,) = report.results
    return comparison_text(one.compared) if isinstance(one, ComparisonResult) else ""
