"""What every verb does with what its call comes to."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from conftest import ROOT

_VERB = """
import sys
sys.argv[0] = "trial"
sys.path.insert(0, "scripts")
from overlaykit.cli import Report, Result, Verb, run

def call(arguments):
    {call}

def show(report):
    {show}

run(Verb("A trial.", (), lambda parser: None, call, show))
"""
_ANSWERS = "return Report(verb='trial', results=(Result('a', 'b', 'c'),))"
_DEFECT = "return {}['nothing of that name']"


def ended(call: str, show: str, *words: str) -> subprocess.CompletedProcess[str]:
    program = _VERB.replace("{call}", call).replace("{show}", show)
    command = [sys.executable, "-c", program, *words]
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    ("call", "show"), [(_DEFECT, "return ''"), (_ANSWERS, _DEFECT)]
)
def test_a_defect_is_no_answer(call: str, show: str) -> None:
    """1 would say that a check was made, and that it does not hold."""
    done = ended(call, show)
    assert (done.returncode, done.stdout) == (5, "")
    assert "KeyError: 'nothing of that name'" in done.stderr
    assert done.stderr.endswith(
        "a defect of this program: it ended without an answer\n"
    )


def test_a_defect_is_a_report_too() -> None:
    done = ended(_DEFECT, "return ''", "--json")
    report = json.loads(done.stdout)
    assert done.returncode == report["exit_code"] == 5
    assert "KeyError" in done.stderr


def test_an_answer_is_shown_and_ends_with_its_code() -> None:
    done = ended(_ANSWERS, "return report.results[0].outcome")
    assert (done.returncode, done.stdout, done.stderr) == (0, "c\n", "")
