"""Verbs that write to this overlay (refresh, lock, rebase --adopt) are interrupted just
before and just after their commit point; each reports correctly which it was."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from conftest import give_modules, run_verb, snapshot

pytestmark = pytest.mark.slow("programs are interrupted at every import")

STAGED, COMMITTED = "journal.json", "done.json"
_INTERRUPTED = """
import os, runpy, signal, sys
root, to, sys.argv = sys.argv[1], sys.argv[2], sys.argv[3:]
sys.path.insert(0, f"{root}/scripts")
def hook(name, details):
    if name == "os.rename" and os.fsdecode(details[1]) == place:
        os.kill(os.getpid(), signal.SIGINT)
place = f"{root}/.overlay-transaction/{to}"
sys.addaudithook(hook)
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def overlay_files(overlay: Path) -> dict[str, bytes]:
    """The overlay's files, without build/ and compiled files."""
    return {p: v[2] for p, v in snapshot(overlay).items() if not p.startswith("build/")}


def run_interrupted(overlay: Path, to: str, verb: str, *arguments: str) -> str:
    """Run a verb and interrupt it when its journal is renamed to ``to``; return its
    last line."""
    script = str(overlay / "scripts" / f"{verb}.py")
    done = subprocess.run(
        [sys.executable, "-c", _INTERRUPTED, str(overlay), to, script, *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
    )
    assert done.returncode == 130, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr.splitlines()[-1]


def refresh(overlay: Path, clone: Path) -> tuple[str, ...]:
    assert run_verb("apply", str(clone)).returncode == 0
    path = clone / "python/sglang/srt/layers/quantization/bpreshuffle_scale.py"
    path.write_text(path.read_text() + "# edited\n")
    return ("refresh", str(clone))


def lock(overlay: Path, _: Path) -> tuple[str, ...]:
    new = overlay / "overlay" / "sglang" / "python" / "sglang" / "one.py"
    new.write_text("ONE = 1\n")
    return ("lock",)


def adopt(overlay: Path, _: Path) -> tuple[str, ...]:
    script = str(overlay / "scripts" / "rebase.py")
    subprocess.run([sys.executable, script, "--onto", "0.5.12"], check=True)
    return ("rebase", "--adopt")


@pytest.mark.parametrize(
    ("prepare", "says"),
    [
        (refresh, "the edits are in the patches"),
        (lock, "the change is in place"),
        (adopt, "the base sglang-0.5.12 is adopted"),
    ],
    ids=["refresh", "lock", "adopt"],
)
def test_an_interrupt_names_the_overlays_state(
    carrier: Path,
    slim: Callable[..., Path],
    prepare: Callable[[Path, Path], tuple[str, ...]],
    says: str,
) -> None:
    verb = prepare(give_modules(carrier), slim(name="tree"))
    before = overlay_files(carrier)
    said = run_interrupted(carrier, STAGED, *verb)
    assert said == "interrupted; nothing was changed"
    assert overlay_files(carrier) == before
    said = run_interrupted(carrier, COMMITTED, *verb)
    assert said == f"interrupted; {carrier}: {says}"
    assert overlay_files(carrier) != before
