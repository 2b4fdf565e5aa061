"""Runs a verb of ``ci/`` as its users do, as a separate process."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from conftest import ROOT
from support.patience import PATIENCE_S


def trace_check(*arguments: str | Path) -> tuple[int, dict[str, Any]]:
    """The verb as its users run it: exit code and report."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "ci" / "trace_check.py"), "--json"]
        + [str(argument) for argument in arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_S,
    )
    assert done.stdout, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    assert report["exit_code"] == done.returncode
    return done.returncode, report
