"""Types, lint and the import contract, over sources and tests alike."""

from __future__ import annotations

import subprocess
import sys

import pytest

from conftest import ROOT

_TOOLS = {
    "types": [sys.executable, "-m", "mypy", "--no-error-summary", "scripts", "ci",
              "tests", "bench"],
    "lint": [sys.executable, "-m", "ruff", "check", "--quiet", "."],
    "format": [sys.executable, "-m", "ruff", "format", "--check", "--quiet", "."],
    "imports": [
        sys.executable,
        "-c",
        "import sys; sys.path[:0] = ['scripts', 'ci']; "
        "from importlinter.cli import lint_imports_command as run; run()",
    ],
    "spelling": [sys.executable, "-m", "codespell_lib", "scripts", "tests", "docs",
                 "README.md", "patches", "overlay", "bench", "ci"],
}  # fmt: skip


@pytest.mark.parametrize("tool", _TOOLS)
def test_clean(tool: str) -> None:
    done = subprocess.run(
        _TOOLS[tool], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
