"""Paths that are not text and contain escape sequences and line ends: every verb gives
its result or refuses, as text and as JSON, and never exits with 1 by accident, which
means that a check does not hold."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from conftest import ROOT, run_verb
from overlaykit.core.errors import Exit
from support.patience import PATIENCE_S

pytestmark = pytest.mark.slow("hostile names, for every verb")

HOSTILE = os.fsdecode(b"t\xff\xfe \x1b[2J\x1b]0;x\x07\nPASS \xe2\x80\xae'$(touch made)")
ASCII = {"LC_ALL": "C", "PYTHONIOENCODING": "ascii:strict", "PYTHONUTF8": "0"}

# Command lines with {} for the path, and the expected verb and exit code.
# A comparison asks for its packages before it reads anything.
COMPARED = Exit.USAGE if importlib.util.find_spec("scipy") else Exit.ENVIRONMENT
VERBS: dict[str, tuple[str, Exit]] = {
    "scripts/apply.py --status {}": ("apply", Exit.USAGE),
    "scripts/apply.py {}": ("apply", Exit.USAGE),
    "scripts/verify.py {}": ("verify", Exit.USAGE),
    "scripts/refresh.py {}": ("refresh", Exit.USAGE),
    "scripts/doctor.py --sglang {} --aiter {}": ("doctor", Exit.USAGE),
    "scripts/drift.py --clone {} --ref HEAD": ("drift", Exit.USAGE),
    "scripts/drift.py --recorded --html {}/x": ("drift", Exit.ENVIRONMENT),
    "scripts/export.py --target sglang --branch {} --clone {}": ("export", Exit.USAGE),
    "scripts/lock.py --check --clone {}": ("lock", Exit.USAGE),
    "scripts/rebase.py --onto HEAD --clone {}": ("rebase", Exit.USAGE),
    "scripts/fetch.py --release {}": ("fetch", Exit.USAGE),
    "ci/gate.py --profile {}": ("gate", Exit.USAGE),
    "ci/gate.py --profile cpu --out {} --dry-run": ("gate", Exit.DONE),
    "ci/cluster.py --profile cpu --out {} --dry-run": ("cluster", Exit.USAGE),
    "ci/bench.py compare {}": ("bench", COMPARED),
    "ci/gsm8k.py compare --baseline {} --patched {}": ("gsm8k", COMPARED),
    "ci/microbench.py --sglang {} --aiter {} --out {}": ("microbench", Exit.USAGE),
    "ci/rebuild.py venv --arm baseline --out {} --dry-run": ("rebuild", Exit.DONE),
    "ci/rebuild.py container --arm baseline --image {} --tag x": (
        "rebuild",
        Exit.USAGE,
    ),
    "ci/trace_check.py {}": ("trace_check", Exit.USAGE),
    "ci/trace_check.py --svg {}": ("trace_check", Exit.USAGE),
}


def run_program(
    command: list[str], more: dict[str, str] | None = None
) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, *command],
        cwd=ROOT,
        env={**os.environ, **(more or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
        timeout=PATIENCE_S,
    )


def check_shown(done: subprocess.CompletedProcess[bytes]) -> None:
    """The output has no control characters, and no line that the name forges."""
    said = done.stdout + done.stderr
    for raw in (b"Traceback", b"\x1b", b"\xff", b"\xe2\x80\xae", b"\nPASS"):
        assert raw not in said, said


@pytest.mark.parametrize("line", VERBS)
def test_a_hostile_path_gets_a_report(line: str, tmp_path: Path) -> None:
    name, code = VERBS[line]
    place = str(tmp_path / HOSTILE)
    words = [word.replace("{}", place) for word in line.split()]
    text = run_program(words, ASCII)
    check_shown(text)
    document = run_program([*words, "--json"], ASCII)
    assert b"Traceback" not in document.stderr
    report = json.loads(document.stdout.decode("utf-8"))
    assert report["verb"] == name
    assert text.returncode == document.returncode == report["exit_code"] == code
    # A strict reader accepts it too: no lone surrogate.
    json.dumps(report, ensure_ascii=False).encode("utf-8")
    assert not (ROOT / "made").exists()


def test_a_hostile_path_gets_the_right_result(
    slim: Callable[..., Path], tmp_path: Path
) -> None:
    """A tree is pristine or applied, whatever its path is."""
    tree = slim().rename(tmp_path / HOSTILE)
    for words, code, outcome in (
        (["--status"], Exit.FAILS, "pristine"),
        ([], Exit.DONE, "applied"),
        (["--status"], Exit.DONE, "applied"),
        (["--unapply"], Exit.DONE, "taken off"),
    ):
        apply = str(ROOT / "scripts" / "apply.py")
        check_shown(run_program([apply, "--status", str(tree)], ASCII))
        document = run_program([apply, "--json", *words, str(tree)], ASCII)
        report = json.loads(document.stdout.decode("utf-8"))
        assert (document.returncode, report["exit_code"]) == (code, code)
        [result] = report["results"]
        assert result["outcome"] == outcome, report
        # In this locale the one printable character becomes three undecodable bytes.
        known = os.fsencode(tree).decode("ascii", "surrogateescape")
        assert result["tree"] == known.encode("utf-8", "backslashreplace").decode()


def test_hostile_names_inside_a_tree_are_ignored(slim: Callable[..., Path]) -> None:
    tree = slim(clone=False)
    (tree / "python" / "sglang" / HOSTILE).write_text("x = 1\n")
    for verb, code in (("apply", Exit.DONE), ("verify", Exit.DONE)):
        done = run_verb(verb, "--json", str(tree))
        assert done.returncode == code, done.stderr
        json.loads(done.stdout)


def test_a_command_is_quoted_correctly_in_a_page(tmp_path: Path) -> None:
    page = tmp_path / "a`b``c|<b>\n# PASS.md"
    done = run_verb(
        "drift", "--release", "0.5.11", "--quote", "0", "--markdown", str(page)
    )
    if done.returncode == Exit.ENVIRONMENT:
        pytest.skip(f"no releases here: {done.stderr[-200:]}")
    assert done.returncode == Exit.DONE, done.stderr
    lines = page.read_text(encoding="utf-8").splitlines()
    [made] = [line for line in lines if line.startswith("Made by ")]
    assert made.startswith("Made by ``` scripts/drift.py ") and made.endswith(" ```.")
    assert [line for line in lines if line.startswith("# ")] == lines[:1]


@pytest.mark.parametrize("closed", ["stdout", "stderr"])
def test_a_closed_stream_does_not_exit_with_1(closed: str, tmp_path: Path) -> None:
    """A file that is opened later does not get the closed descriptor either."""
    number = {"stdout": 1, "stderr": 2}[closed]
    line = f'exec {number}>&-; exec "$0" "$@"'
    command = ["sh", "-c", line, sys.executable, str(ROOT / "scripts" / "apply.py")]
    done = subprocess.run(
        [*command, "--json", "--status", str(tmp_path)],
        capture_output=True,
        check=False,
    )
    if closed == "stdout":
        assert done.returncode == Exit.ENVIRONMENT
        assert b"standard output is closed" in done.stderr
    else:
        assert done.returncode == json.loads(done.stdout)["exit_code"] == Exit.USAGE


def test_a_page_that_cannot_be_written_is_refused_first(tmp_path: Path) -> None:
    """Before the work of minutes: even before the clone is looked for."""
    nowhere = str(tmp_path / "nowhere")
    for option in ("--html", "--markdown"):
        done = run_verb("drift", "--clone", nowhere, "--ref", "HEAD",
                        option, f"{nowhere}/page")  # fmt: skip
        assert done.returncode == Exit.ENVIRONMENT, done.stderr
        assert f"cannot write {nowhere}/page" in done.stderr
