"""The question file, and the verb in a process of its own, its imports made once."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support.fork_server import ForkServer

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


@pytest.fixture(scope="session")
def _imported() -> Iterator[ForkServer]:
    pytest.importorskip("sgl_eval", reason="pip install --group gate")
    # What the verb's actions import when they are chosen.
    server = ForkServer(
        "gatekit.gsm8k.run_action", "gatekit.gsm8k.compare_action", "sgl_eval.cli"
    )
    yield server
    server.close()


@pytest.fixture
def gsm8k(_imported: ForkServer) -> Verb:
    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        _, script, *words = command(*arguments)
        return _imported.run(Path(script), words)

    return run


@pytest.fixture
def sgl_eval(_imported: ForkServer) -> Verb:
    """Its own program, run likewise."""

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        program = ROOT / "tests" / "support" / "sgl_eval_program.py"
        return _imported.run(program, [*map(str, arguments)])

    return run
