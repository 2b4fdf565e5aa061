#!/usr/bin/env python3
"""Is serving as fast as before? Run the benchmark on both arms, and decide.

``run`` makes the runs of ``sglang.bench_serving`` with its traps closed, interleaved,
each recorded as it ends. ``compare`` takes the runs in pairs and says pass, fail or
inconclusive; runs that prove nothing are invalid, never left out.
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
from overlaykit.core.errors import EnvironmentFailure, Finding


def bench(arguments: Namespace) -> Report:
    """Run or compare."""
    points = points_of(arguments.points)
    if arguments.action == "run":
        return run_action.call(arguments, points)
    # Half a second, and packages that a run does not need.
    try:
        from gatekit.serving import compare_action
    except ImportError as error:
        step = "pip install --group gate"
        finding = Finding(str(error), next_step=step)
        raise EnvironmentFailure("a package is missing", (finding,)) from error
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
            "Run sglang.bench_serving on a baseline and on the patched tree, and "
            "decide whether the patched one serves as fast. compare says pass (exit "
            "code 0), fail (1), or inconclusive or invalid (4).",
            RUN_EXAMPLES[:4] + COMPARE_EXAMPLES[:1],
            options,
            bench,
            show,
        )
    )
