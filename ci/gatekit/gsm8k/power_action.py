"""``ci/gsm8k.py power``."""

from __future__ import annotations

import sys
from argparse import Namespace

from gatekit.gsm8k.page import page
from gatekit.gsm8k.predictions import Predictions, predict
from gatekit.gsm8k.text import power_text
from overlaykit.cli import Report, progress
from overlaykit.core.files import check_place, write_whole
from overlaykit.core.wording import pasteable


def call(arguments: Namespace) -> Report:
    """Compute what runs of the given sizes can show."""
    check_place(arguments.markdown)
    predictions = predict(
        arguments.questions,
        arguments.discordance,
        arguments.margin,
        arguments.calibrate,
        progress,
    )
    if arguments.markdown:
        write_whole(
            arguments.markdown,
            page(predictions, pasteable(["ci/gsm8k.py", *sys.argv[1:]])),
        )
    return Report(verb="gsm8k", message="", results=(predictions,))


def show(report: Report) -> str:
    (one,) = report.results
    return power_text(one) if isinstance(one, Predictions) else ""
