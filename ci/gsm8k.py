#!/usr/bin/env python3
"""Compare GSM8K answers of both arms, question by question.

``run`` asks an endpoint and stores every answer; ``compare`` compares the runs of two
arms; ``power`` shows in advance what a run of N questions can show.
"""

from __future__ import annotations

import sys
from argparse import Namespace
from importlib import import_module
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))

import overlaykit  # noqa: F401  (first: it handles failed imports)

# isort: split
from gatekit.gsm8k.options import (
    COMPARE_EXAMPLES,
    POWER_EXAMPLES,
    RUN_EXAMPLES,
    options,
)
from overlaykit.cli import Report, Verb, run
from overlaykit.core.python import needs


class Gsm8k:
    """Imports only the chosen action: ``run`` needs no statistics, ``compare`` no
    sgl-eval, and each takes a second to load."""

    def __init__(self) -> None:
        self._action = ""

    def call(self, arguments: Namespace) -> Report:
        self._action = f"gatekit.gsm8k.{arguments.action}_action"
        with needs("gate"):
            action = import_module(self._action)
        report: Report = action.call(arguments)
        return report

    def show(self, report: Report) -> str:
        """The report as a person reads it."""
        return str(import_module(self._action).show(report))


if __name__ == "__main__":
    gsm8k = Gsm8k()
    run(
        Verb(
            "Compare GSM8K answers of both arms, question by question. compare prints "
            "pass (exit code 0), fail (1), inconclusive or invalid (4).",
            (RUN_EXAMPLES[0], COMPARE_EXAMPLES[0], POWER_EXAMPLES[0]),
            options,
            gsm8k.call,
            gsm8k.show,
        )
    )
