"""Runs a verb of ``ci/`` as its users do, as a separate process."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from conftest import ROOT
from support.patience import PATIENCE_S

Reported = tuple[int, dict[str, Any], str]


def reported(command: Sequence[str], env: Mapping[str, str] | None = None) -> Reported:
    """Run a command with ``--json``: exit code, report and standard error."""
    done = subprocess.run(
        command,
        env=env,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_S,
    )
    assert done.stdout, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    assert report["exit_code"] == done.returncode, done.stderr
    return done.returncode, report, done.stderr


def trace_check(*arguments: str | Path) -> tuple[int, dict[str, Any]]:
    """The exit code and the report of trace_check."""
    verb = [sys.executable, str(ROOT / "ci" / "trace_check.py"), "--json"]
    return reported([*verb, *map(str, arguments)])[:2]
