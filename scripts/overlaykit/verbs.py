"""Running a verb as users do, from another program."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TypeVar

import msgspec

from overlaykit.cli import Report
from overlaykit.core.documents import from_json
from overlaykit.core.errors import EnvironmentFailure, Exit, not_started

R = TypeVar("R", bound=Report)


def run_verb(root: Path, name: str, *arguments: str, kind: type[R]) -> R:
    """A verb's report; ``root`` is the overlay whose verb it is. What the verb says on
    standard error appears there.

    Raises EnvironmentFailure if the verb ends with a usage or environment error.
    """
    script = f"scripts/{name}.py"
    command = [sys.executable, str(root / script), "--json", *arguments]
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, check=False)
    except OSError as error:
        raise not_started(command[0], error) from error
    try:
        report = from_json(done.stdout, kind)
    except msgspec.DecodeError as error:
        raise EnvironmentFailure(f"{script} printed no report: {error}") from error
    if report.exit_code in (Exit.USAGE, Exit.ENVIRONMENT):
        raise EnvironmentFailure(report.message, report.findings)
    return report
