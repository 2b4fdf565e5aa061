"""The evidence's plain join agrees with ``trace_check`` on the available traces."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from conftest import ROOT
from support.profiler_traces import TRACES, as_profiler, needs_traces
from support.small_traces import eager

_SCRIPT = ROOT / "bench" / "trace_public.py"
H200 = ROOT / "tests" / "data" / "traces" / "h200-m64"


def compared(folder: Path) -> tuple[int, list[str]]:
    done = subprocess.run(
        [sys.executable, str(_SCRIPT), f"here@now={folder}"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert not done.stderr
    return done.returncode, done.stdout.splitlines()


def test_h200() -> None:
    code, lines = compared(H200)
    assert code == 0
    assert sum(line.startswith("counts equal") for line in lines) >= 2


@needs_traces
def test_mi300x(tmp_path: Path) -> None:
    code, lines = compared(TRACES)
    assert code == 0
    assert sum("| pass |" in line for line in lines) == 2


@pytest.mark.parametrize("copies", [(), ((30.0, 33.0),)])
def test_small(copies: tuple[tuple[float, float], ...], tmp_path: Path) -> None:
    (tmp_path / "t.json").write_bytes(as_profiler(eager(copies)))
    code, (line,) = compared(tmp_path)
    assert code == 0
    assert f"3 / {6 + 3 * len(copies)} / {3 * len(copies)} | pass" in line


def test_a_difference_is_reported(tmp_path: Path) -> None:
    """Rounded times, which the plain join does not handle."""
    (tmp_path / "t.json").write_bytes(as_profiler(eager(((58.0, 60.001),))))
    code, (line,) = compared(tmp_path)
    assert code == 1
    assert line.startswith("DIFFERS")
