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

run(Verb("A trial.", (), lambda parser: None, call, show, tells={tells}))
"""
_ANSWERS = "return Report(verb='trial', results=(Result('a', 'b', 'c'),))"
_DEFECT = "return {}['nothing of that name']"


def ended(
    call: str, show: str, *words: str, tells: bool = True
) -> subprocess.CompletedProcess[str]:
    program = _VERB.replace("{call}", call).replace("{show}", show)
    program = program.replace("{tells}", str(tells))
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


_INTERRUPT = "__import__('os').kill(__import__('os').getpid(), {number})"
_CHANGE = "from overlaykit.outcome import tell; tell('/a/tree', 'the series is in'); "


@pytest.mark.parametrize("number", [2, 15, 1])
@pytest.mark.parametrize(
    ("tells", "change", "said"),
    [
        (False, "", "interrupted"),
        (True, "", "interrupted; nothing was changed"),
        (True, _CHANGE, "interrupted; /a/tree: the series is in"),
    ],
)
def test_interrupted_says_where_everything_stands(
    number: int, tells: bool, change: str, said: str
) -> None:
    interrupt = _INTERRUPT.replace("{number}", str(number))
    done = ended(f"{change}{interrupt}", "return ''", tells=tells)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", f"{said}\n")
    done = ended(f"{change}{_ANSWERS}", f"{interrupt}; return ''", tells=tells)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", f"{said}\n")


def test_interrupted_while_it_is_said() -> None:
    """What was changed is changed: the report is printed to its end."""
    show = f"""
    class Out(type(sys.stdout)):
        def write(self, text):
            {_INTERRUPT.replace("{number}", "2")}
            return super().write(text)
    sys.stdout = Out(sys.stdout.buffer, encoding="utf-8")
    return "the answer"
"""
    done = ended(f"{_CHANGE}{_ANSWERS}", show)
    assert (done.returncode, done.stdout, done.stderr) == (0, "the answer\n", "")


@pytest.mark.parametrize("error", [_DEFECT, "raise OSError('no disk')"])
def test_a_failure_after_a_change_names_it(error: str) -> None:
    done = ended(f"{_CHANGE}{error}", "return ''")
    assert done.returncode == 5
    assert "/a/tree: the series is in\n" in done.stderr
