"""Types, lint and the import contract, over sources and tests alike."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from conftest import ROOT
from overlaykit.core.documents import from_toml

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


def test_the_core_group_is_requirements_txt() -> None:
    """One is for pip of any age, the other for the groups that include it."""
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    listed = [line.replace('"', "'") for line in lines if not line.startswith("#")]
    groups = from_toml((ROOT / "pyproject.toml").read_bytes(), dict[str, Any])
    assert groups["dependency-groups"]["core"] == listed
