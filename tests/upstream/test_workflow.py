"""The nightly workflow: its syntax, its permissions, and the names it uses."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import Any

import pytest
import yaml

from conftest import ROOT

WORKFLOW = ROOT / ".github" / "workflows" / "nightly.yml"
MAKEFILE = ROOT / "Makefile"


@pytest.fixture(scope="module")
def workflow() -> dict[Any, Any]:
    loaded = yaml.safe_load(WORKFLOW.read_text(encoding="utf-8"))
    assert isinstance(loaded, dict)
    return loaded


def test_it_runs_nightly_and_by_hand(workflow: dict[Any, Any]) -> None:
    on = workflow[True]  # YAML 1.1 reads `on` as a truth value.
    [schedule] = on["schedule"]
    assert re.fullmatch(r"\d+ \d+ \* \* \*", schedule["cron"])
    assert "workflow_dispatch" in on
    assert workflow["concurrency"]["group"] == "nightly"


def test_it_has_only_the_permissions_it_needs(workflow: dict[Any, Any]) -> None:
    assert workflow["permissions"] == {}
    [job] = workflow["jobs"].values()
    write = ("contents", "issues", "pull-requests")
    assert job["permissions"] == dict.fromkeys(write, "write")
    assert job["timeout-minutes"] <= 60


def test_actions_are_pinned(workflow: dict[Any, Any]) -> None:
    [job] = workflow["jobs"].values()
    used = [step["uses"] for step in job["steps"] if "uses" in step]
    assert len(used) == 3
    for action in used:
        assert re.fullmatch(r"actions/[a-z-]+@[0-9a-f]{40}", action), action


def test_its_shell_parses(workflow: dict[Any, Any]) -> None:
    [job] = workflow["jobs"].values()
    scripts = [step["run"] for step in job["steps"] if "run" in step]
    assert len(scripts) == 2
    for script in scripts:
        # GitHub fills in nothing: a title or a subject must not become a command.
        assert "${{" not in script
        done = subprocess.run(
            ["bash", "-n"], input=script, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr


def test_it_uses_options_that_the_verb_has(workflow: dict[Any, Any]) -> None:
    [job] = workflow["jobs"].values()
    script = "".join(step.get("run", "") for step in job["steps"])
    call = script[script.index("scripts/nightly.py") :].split("cat ")[0]
    help_text = subprocess.run(
        [sys.executable, "-c",
         "import sys; sys.path.insert(0, 'scripts'); import argparse, nightly; "
         "p = argparse.ArgumentParser(); nightly.options(p); print(p.format_help())"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert help_text.returncode == 0, help_text.stderr
    for option in re.findall(r"--[a-z-]+", call):
        assert option in help_text.stdout
    for named in re.findall(r"make (\S+)", script):
        assert f"$(VENV)/{named.removeprefix('.venv/')}:" in MAKEFILE.read_text()
