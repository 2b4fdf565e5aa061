"""The question file, and the verb as its users run it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from support.patience import PATIENCE_S

ROOT = Path(__file__).resolve().parents[3]
Verb = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def few(questions: Path, tmp_path: Path) -> Path:
    """The first forty of them, as a file of its own."""
    path = tmp_path / "few.jsonl"
    lines = questions.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:40]))
    return path


def command(*arguments: object) -> list[str]:
    return [sys.executable, str(ROOT / "ci" / "gsm8k.py"), *map(str, arguments)]


@pytest.fixture
def gsm8k() -> Verb:
    pytest.importorskip("sgl_eval", reason="pip install --group gate")

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command(*arguments),
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE_S,
        )

    return run
