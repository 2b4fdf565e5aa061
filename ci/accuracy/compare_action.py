"""``ci/gsm8k.py compare``."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from accuracy.comparing import Compared, Verdict, compare
from accuracy.results import load_results
from accuracy.showing import show_compared
from overlaykit.cli import Report, Result
from overlaykit.errors import Exit, Finding, InputError

_EXITS = {
    Verdict.PASS: Exit.DONE,
    Verdict.FAIL: Exit.FAILS,
    Verdict.INCONCLUSIVE: Exit.INVALID,
    Verdict.INVALID: Exit.INVALID,
}


class ComparedResult(Result, frozen=True, kw_only=True):
    compared: Compared


def call(arguments: Namespace) -> Report:
    """Decide between two arms."""
    arms = {
        arm: [one for path in getattr(arguments, arm) for one in load_results(path)]
        for arm in ("baseline", "patched")
    }
    places = [Path(one.path).resolve() for runs in arms.values() for one in runs]
    if len(set(places)) < len(places):
        raise InputError("a run is named more than once: it cannot be its own control")
    if len(arms["baseline"]) != len(arms["patched"]):
        raise InputError(
            f"{len(arms['baseline'])} runs of the baseline and {len(arms['patched'])} "
            "of the patched: as many are needed"
        )
    compared = compare(arms["baseline"], arms["patched"], arguments.margin)
    result = ComparedResult(
        target="gsm8k",
        tree=", ".join(map(str, arguments.patched)),
        outcome=compared.verdict.value,
        compared=compared,
    )
    wrong = [check for check in compared.controls if not check.holds] or [
        claim for claim in compared.claims if not claim.holds
    ]
    return Report(
        verb="gsm8k",
        exit_code=_EXITS[compared.verdict],
        message=_message(compared),
        results=(result,),
        findings=tuple(
            Finding(
                f"{compared.verdict.value}: {check.name}",
                expected=check.expected,
                found=check.found,
            )
            for check in wrong
        ),
    )


def _message(compared: Compared) -> str:
    verdict = compared.verdict
    if verdict is not Verdict.INCONCLUSIVE or compared.score is None:
        return verdict.value
    further = compared.score.further
    return f"{verdict.value}: " + (
        f"at these rates about {further} further questions would decide"
        if further
        else "at these rates no number of questions within reach would decide"
    )


def show(report: Report) -> str:
    (one,) = report.results
    return show_compared(one.compared) if isinstance(one, ComparedResult) else ""
