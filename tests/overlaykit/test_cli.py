"""How every verb reports results, errors and interrupts."""

from __future__ import annotations

import json
import subprocess
import sys
from argparse import ArgumentTypeError
from pathlib import Path

import msgspec
import pytest

from conftest import ROOT
from overlaykit.cli import Result
from overlaykit.core.options import whole_number

_VERB = """
import sys
sys.argv[0] = "trial"
sys.path.insert(0, "scripts")
from overlaykit.cli import Report, Result, Verb, run

def call(arguments):
    {call}

def show(report):
    {show}

def number(text):
    {kind}

run(Verb("A trial.", (), lambda p: p.add_argument("--n", type=number), call, show,
         reports_effects={reports_effects}))
"""
_REPORTS = "return Report(verb='trial', results=(Result('a', 'b', 'c'),))"
_BUG = "return {}['nothing of that name']"


def run_trial(
    call: str,
    show: str,
    *words: str,
    kind: str = "return text",
    reports_effects: bool = True,
) -> subprocess.CompletedProcess[str]:
    program = _VERB.replace("{call}", call).replace("{show}", show)
    program = program.replace("{kind}", kind).replace(
        "{reports_effects}", str(reports_effects)
    )
    command = [sys.executable, "-c", program, *words]
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(("call", "show"), [(_BUG, "return ''"), (_REPORTS, _BUG)])
def test_a_bug_exits_with_5(call: str, show: str) -> None:
    """Exit code 1 would mean that a check was made and does not hold."""
    done = run_trial(call, show)
    assert (done.returncode, done.stdout) == (5, "")
    assert "KeyError: 'nothing of that name'" in done.stderr
    assert done.stderr.endswith("internal error: this program has a bug\n")


def test_a_bug_is_reported_as_json() -> None:
    done = run_trial(_BUG, "return ''", "--json")
    report = json.loads(done.stdout)
    assert done.returncode == report["exit_code"] == 5
    assert "KeyError" in done.stderr


def test_a_report_is_printed_and_sets_the_exit_code() -> None:
    done = run_trial(_REPORTS, "return report.results[0].outcome")
    assert (done.returncode, done.stdout, done.stderr) == (0, "c\n", "")


_INTERRUPT = "__import__('os').kill(__import__('os').getpid(), {number})"
_CHANGE = (
    "from overlaykit.core.effects import record_effect; "
    "record_effect('/a/tree', 'the series is in'); "
)


@pytest.mark.parametrize("number", [2, 15, 1])
@pytest.mark.parametrize(
    ("reports_effects", "change", "said"),
    [
        (False, "", "interrupted"),
        (True, "", "interrupted; nothing was changed"),
        (True, _CHANGE, "interrupted; /a/tree: the series is in"),
    ],
)
def test_an_interrupt_names_the_state_of_every_tree(
    number: int, reports_effects: bool, change: str, said: str
) -> None:
    interrupt = _INTERRUPT.replace("{number}", str(number))
    done = run_trial(
        f"{change}{interrupt}", "return ''", reports_effects=reports_effects
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", f"{said}\n")
    done = run_trial(
        f"{change}{_REPORTS}",
        f"{interrupt}; return ''",
        reports_effects=reports_effects,
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", f"{said}\n")


def test_an_interrupt_while_printing() -> None:
    """The change is final, so the report is printed completely."""
    show = f"""
    class Out(type(sys.stdout)):
        def write(self, text):
            {_INTERRUPT.replace("{number}", "2")}
            return super().write(text)
    sys.stdout = Out(sys.stdout.buffer, encoding="utf-8")
    return "the answer"
"""
    done = run_trial(f"{_CHANGE}{_REPORTS}", show)
    assert (done.returncode, done.stdout, done.stderr) == (0, "the answer\n", "")


@pytest.mark.parametrize("error", [_BUG, "raise OSError('no disk')"])
def test_a_failure_after_a_change_names_the_change(error: str) -> None:
    done = run_trial(f"{_CHANGE}{error}", "return ''")
    assert done.returncode == 5
    assert "/a/tree: the series is in\n" in done.stderr


@pytest.mark.parametrize(
    "call",
    [
        "raise SystemExit(1)",
        "sys.exit('a library gave up')",
        "raise RecursionError",
        "raise MemoryError",
        "raise UnicodeDecodeError('utf-8', bytes(1), 0, 1, 'x')",
        "raise OverflowError",
        "return Report(verb='trial', message=object())",
        "exec('call(arguments)')",
        "eval('-' * 100000 + '1')",
    ],
)
@pytest.mark.parametrize("words", [(), ("--json",)], ids=["text", "json"])
def test_no_error_exits_with_1(call: str, words: tuple[str, ...]) -> None:
    done = run_trial(call, "return ''", *words)
    assert done.returncode == 5, done.stderr
    if words:
        assert json.loads(done.stdout)["exit_code"] == 5


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        ("return int(text)", 2),
        ("raise OverflowError", 5),
        ("raise RecursionError", 5),
        (
            "from overlaykit.core.errors import InputError; "
            "raise InputError('no number')",
            2,
        ),
    ],
)
@pytest.mark.parametrize("words", [(), ("--json",)], ids=["text", "json"])
def test_a_bad_option_does_not_exit_with_1(
    kind: str, code: int, words: tuple[str, ...]
) -> None:
    number = "1" * 5000
    done = run_trial(_REPORTS, "return ''", "--n", number, *words, kind=kind)
    assert done.returncode == code, done.stderr
    if words:
        assert json.loads(done.stdout)["exit_code"] == code


def test_a_bad_command_line_is_reported_as_json() -> None:
    done = run_trial(_REPORTS, "return ''", "--json", "--what")
    report = json.loads(done.stdout)
    assert done.returncode == report["exit_code"] == 2
    assert report["message"].endswith("error: unrecognized arguments: --what")
    assert done.stderr.startswith("usage: ")


VERBS = sorted(
    [*ROOT.glob("scripts/*.py"), *ROOT.glob("ci/*.py")], key=lambda place: str(place)
)


@pytest.mark.parametrize("verb", VERBS, ids=lambda place: place.stem)
def test_missing_msgspec_is_reported(verb: Path) -> None:
    """Every verb, whatever it imports first. With -S no installed package is found."""
    command = [sys.executable, "-S", "-B", str(verb), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    report = json.loads(done.stdout)
    assert done.returncode == report["exit_code"] == 5
    assert "Traceback" not in done.stderr
    assert "msgspec is not installed" in done.stderr == f"{report['message']}\n"


@pytest.mark.parametrize(
    ("text", "least", "ok"),
    [
        ("1", 1, True),
        ("0", 1, False),
        ("0", 0, True),
        ("-1", 0, False),
        ("1_0", 0, False),
        ("\u00b2", 0, False),
        ("\u0663", 0, False),
        ("1e3", 0, False),
        ("1" * 5000, 0, False),
        ("1000000001", 0, False),
    ],
)
def test_numbers_have_a_limit(text: str, least: int, ok: bool) -> None:
    read = whole_number(least)
    if ok:
        assert read(text) == int(text)
        return
    with pytest.raises(ArgumentTypeError) as caught:
        read(text)
    assert len(str(caught.value)) < 120


def test_an_empty_field_is_left_out_on_every_python() -> None:
    """Python 3.10 makes a new empty tuple here; the others have one."""
    nothing = tuple(path for path in [""] if path)
    result = Result("sglang", "/tree", "made", changed=nothing, notes=("a",))
    assert msgspec.to_builtins(result) == {
        "target": "sglang",
        "tree": "/tree",
        "outcome": "made",
        "notes": ("a",),
    }
