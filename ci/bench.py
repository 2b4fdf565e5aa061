#!/usr/bin/env python3
"""Run the serving benchmark on both arms, and compare their speed.

``run`` runs ``sglang.bench_serving`` with safe options, interleaves the arms and
records each run when it ends. ``compare`` pairs the runs and prints pass, fail or
inconclusive; if a run proves nothing, the comparison is invalid.
"""

from __future__ import annotations

import sys
from argparse import Namespace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))

import overlaykit  # noqa: F401  (first: it handles failed imports)

# isort: split
from gatekit.serving import run_action
from gatekit.serving.options import COMPARE_EXAMPLES, RUN_EXAMPLES, options
from gatekit.serving.points import points_of
from overlaykit.cli import Report, Verb, run
from overlaykit.core.python import needs


def bench(arguments: Namespace) -> Report:
    """Run or compare."""
    points = points_of(arguments.points)
    if arguments.action == "run":
        return run_action.call(arguments, points)
    # Imported late: takes half a second and needs packages that run does not.
    with needs("gate"):
        from gatekit.serving import compare_action
    return compare_action.call(arguments, points)


def show(report: Report) -> str:
    """The report as a person reads it."""
    if isinstance(report.results[0], run_action.RunResult):
        return run_action.show(report)
    from gatekit.serving import compare_action

    return compare_action.show(report)


if __name__ == "__main__":
    run(
        Verb(
            "Run sglang.bench_serving on the baseline and the patched arm, and decide "
            "whether the patched arm is as fast. compare prints pass (exit code 0), "
            "fail (1), or inconclusive or invalid (4).",
            RUN_EXAMPLES[:4] + COMPARE_EXAMPLES[:1],
            options,
            bench,
            show,
        )
    )
