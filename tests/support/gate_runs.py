"""Runs of the gate on copies of this repository, which tests break, kill and misuse."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from conftest import ROOT
from support.one_base import keep_first, lock_again
from support.patience import PATIENCE_S, wait_until
from support.processes import alive, family, running

SCRIPTED = Path(__file__).parents[1] / "gatekit" / "run" / "scripted_server.py"
REBUILD = "[rebuild]\nmode = 'venv'"
_PARTS = ("scripts", "ci", "patches", "overlay")
_FILES = ("overlay.toml", "overlay.lock", "requirements.txt")


@dataclass(frozen=True)
class Ended:
    """A finished run of the gate: its output, and its report if it wrote one."""

    code: int
    report: dict[str, Any]
    stderr: str
    out: Path

    @property
    def document(self) -> dict[str, Any]:
        """``report.json``."""
        found: dict[str, Any] = json.loads((self.out / "report.json").read_text())
        return found

    @property
    def states(self) -> dict[str, str]:
        return {one["target"]: one["outcome"] for one in self.report["results"]}

    def reason(self, stage: str) -> str:
        found = (r for r in self.report["results"] if r["target"] == stage)
        return str(next(found).get("reason", ""))

    @property
    def all_output(self) -> str:
        """Standard error and the report."""
        return self.stderr + json.dumps(self.report, ensure_ascii=False)


@dataclass(frozen=True)
class Copy:
    """A copy of the repository with the fetched packages."""

    root: Path

    def command(self, *arguments: object) -> list[str]:
        gate = str(self.root / "ci" / "gate.py")
        return [sys.executable, gate, "--json", *map(str, arguments)]

    def gate(self, profile: Path | str, out: Path, *arguments: object) -> Ended:
        """Run the gate as its users do."""
        command = self.command("--profile", profile, "--out", out, *arguments)
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=PATIENCE_S
        )
        assert done.stdout, done.stderr
        report = json.loads(done.stdout)
        assert report["exit_code"] == done.returncode
        return Ended(done.returncode, report, done.stderr, out)

    def start(
        self, profile: Path | str, out: Path, *arguments: object
    ) -> subprocess.Popen[str]:
        """Start the gate, for the caller to kill or interrupt."""
        return subprocess.Popen(
            self.command("--profile", profile, "--out", out, *arguments),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def edit(self, path: str, old: str, new: str) -> None:
        """Replace a text that must occur exactly once."""
        place = self.root / path
        text = place.read_text(encoding="utf-8")
        assert text.count(old) == 1, (path, old)
        place.write_text(text.replace(old, new), encoding="utf-8")

    def lock(self) -> None:
        """Make the lock again, as a maintainer does after an edit."""
        lock_again(self.root)


def copy_repository(place: Path) -> Copy:
    """Copy this working tree with only the first base of SGLang, to halve the work."""
    for name in _PARTS:
        shutil.copytree(ROOT / name, place / name)
    for name in _FILES:
        shutil.copy2(ROOT / name, place / name)
    (place / "build").mkdir()
    (place / "build" / "cache").symlink_to(ROOT / "build" / "cache")
    keep_first(place)
    return Copy(place)


def another(copy: Copy, place: Path) -> Copy:
    """A copy of a copy."""
    return Copy(Path(shutil.copytree(copy.root, place, symlinks=True)))


def kill_9(process: subprocess.Popen[str], where: Path) -> int:
    """Kill the gate with SIGKILL, wait until every process that it had started ends,
    and return their number."""
    # Stopped first, so that it starts no process after the count.
    process.send_signal(signal.SIGSTOP)
    started = family(process.pid)
    process.send_signal(signal.SIGKILL)
    process.wait(PATIENCE_S)
    if process.stdout:
        process.stdout.close()
    wait_until(lambda: not running(where) and not any(alive(*one) for one in started))
    return len(started)


def results(out: Path) -> dict[str, tuple[int, bytes]]:
    """Every stage's result and the time when it was written."""
    return {
        str(path.relative_to(out)): (path.stat().st_mtime_ns, path.read_bytes())
        for path in out.glob("*/*/result.json")
    }


def profile(place: Path, *sections: str, name: str = "trial") -> Path:
    """Write a profile with these sections."""
    path = place / f"{name}.toml"
    path.write_text("\n\n".join(('about = "a test\'s"', *sections)) + "\n")
    return path


def served(*words: object, deadline_s: int = PATIENCE_S, more: str = "") -> str:
    """A [server] section that runs a Python program of the tests."""
    command = ", ".join(json.dumps(str(word)) for word in ("{gate_python}", *words))
    return f"[server]\ncommand = [{command}]\ndeadline_s = {deadline_s}\n{more}"


def gsm8k(questions: Path, count: int, *, threads: int = 8, order: str = "AB") -> str:
    """A [gsm8k] section that asks a file's first questions."""
    return (
        f"[gsm8k]\nquestions = {count}\nparallelism = {threads}\norder = '{order}'\n"
        f"max_tokens = 64\nfiles = [{json.dumps(str(questions))}]"
    )


def lines(path: Path) -> list[str]:
    """The lines of a file; none if it does not exist yet."""
    return path.read_text().splitlines() if path.is_file() else []


def answers(out: Path) -> dict[str, list[str]]:
    """Every recorded answer as it was written, for each run."""
    return {
        path.parent.name: lines(path)
        for path in out.glob("gsm8k/*/run-*/answers.jsonl")
    }


def unique(items: Iterable[str]) -> bool:
    listed = list(items)
    return len(set(listed)) == len(listed)
