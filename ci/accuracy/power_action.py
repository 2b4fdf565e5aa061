"""``ci/gsm8k.py power``."""

from __future__ import annotations

import os
import shlex
import sys
from argparse import Namespace
from pathlib import Path

from accuracy.foretelling import Foretold, foretell
from accuracy.page import page
from accuracy.showing import show_power
from overlaykit.cli import Report, progress
from overlaykit.errors import EnvironmentFailure


def call(arguments: Namespace) -> Report:
    """Say what a number of questions can tell."""
    foretold = foretell(
        arguments.questions,
        arguments.discordance,
        arguments.margin,
        arguments.calibrate,
        progress,
    )
    if arguments.markdown:
        _write(
            arguments.markdown,
            page(foretold, shlex.join(["ci/gsm8k.py", *sys.argv[1:]])),
        )
    return Report(verb="gsm8k", message="", results=(foretold,))


def _write(path: Path, text: str) -> None:
    """Whole or not at all, also when interrupted."""
    part = path.with_name(f".{path.name}.part")
    try:
        part.write_text(text, encoding="utf-8")
        os.replace(part, path)
    except OSError as error:
        raise EnvironmentFailure(f"cannot write {path}: {error.strerror}") from error
    finally:
        part.unlink(missing_ok=True)


def show(report: Report) -> str:
    (one,) = report.results
    return show_power(one) if isinstance(one, Foretold) else ""
