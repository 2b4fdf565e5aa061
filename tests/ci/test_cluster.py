"""``ci/cluster.py`` with submitit's local executor: real jobs, each a real gate."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from conftest import ROOT, Pins
from support.ci_verb import Reported, reported
from support.gate_runs import copy_repository
from support.patience import PATIENCE_S, wait_until
from support.processes import family, running

pytestmark = pytest.mark.slow("jobs are waited for")

pytest.importorskip("submitit", reason="pip install --group slurm")

_STAGES = ("apply", "verify", "rebuild")
_LEFT_OUT = ("numeric", "chain", "gsm8k", "traces", "bench")


def _profile(folder: Path, *without: str, more: str = "") -> Path:
    """A profile with the stages that need no kernel and no server."""
    text = 'about = "a few stages"\n' + more
    if "rebuild" not in without:
        text += '[rebuild]\nmode = "venv"\n'
    text += "[not_run]\n"
    left = [name for name in (*_LEFT_OUT, *without) if f"[{name}]" not in more]
    text += "".join(f'{name} = "not in this test"\n' for name in left)
    path = folder / "few.toml"
    path.write_text(text, encoding="utf-8")
    return path


def command(profile: Path, out: Path, *more: str, where: Path = ROOT) -> list[str]:
    verb = where / "ci" / "cluster.py"
    return [sys.executable, str(verb), "--profile", str(profile), "--out", str(out),
            *more, "--json"]  # fmt: skip


def local(where: Path, profile: Path, out: Path, *more: str) -> list[str]:
    more = ("--executor", "local", "--gpus", "0", *more)
    return command(profile, out, *more, where=where)


@pytest.fixture(scope="module")
def repository(pins: Pins, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of this repository, to halve the work. ``pins`` has fetched its
    packages."""
    assert pins.wheels
    return copy_repository(tmp_path_factory.mktemp("cluster") / "repository").root


@dataclass(frozen=True)
class Ran:
    """A finished run of the stages that need no kernel and no server."""

    profile: Path
    out: Path
    ended: Reported

    def up_to(self, last: str, folder: Path) -> Path:
        """A run directory with the results of the stages up to this one."""
        (folder / "run").mkdir()
        for name in _STAGES[: _STAGES.index(last) + 1]:
            (folder / "run" / name).symlink_to(self.out / name)
        return folder / "run"


@pytest.fixture(scope="module")
def ran(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ran]:
    folder = tmp_path_factory.mktemp("ran")
    profile, out = _profile(folder), folder / "run"
    yield Ran(profile, out, reported(local(repository, profile, out)))
    shutil.rmtree(folder, ignore_errors=True)


def _by_name(report: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {result["target"]: result for result in report["results"]}


def test_jobs_run_in_order_in_one_run_directory(ran: Ran, repository: Path) -> None:
    out, (code, report, said) = ran.out, ran.ended
    assert code == 4, said  # five stages were left out
    stages = _by_name(report)
    for name in _STAGES:
        assert stages[name]["outcome"] == "pass" and stages[name]["job"]
    assert all(stages[name]["outcome"] == "not run" for name in _LEFT_OUT)
    order = re.findall(r"(?m)^(\w+): (?:submitted|pass$)", said)
    assert order[:6] == ["apply", "apply", "verify", "verify", "rebuild", "rebuild"]
    # The gate's own reports, with all stages.
    whole = json.loads((out / "report.json").read_bytes())
    states = {stage["name"]: stage["state"] for stage in whole["stages"]}
    assert states == {name: one["outcome"] for name, one in stages.items()}
    assert (out / "report.html").is_file() and (out / "report.md").is_file()

    before = (out / "rebuild").stat().st_mtime_ns
    code, again, said = reported(local(repository, ran.profile, out))
    assert code == 4 and "pass (earlier result)" in said
    assert {n: s["outcome"] for n, s in _by_name(again).items()} == states
    assert (out / "rebuild").stat().st_mtime_ns == before


def test_stage_after_a_failed_stage_is_not_submitted(
    ran: Ran, repository: Path, tmp_path: Path
) -> None:
    """The server cannot start: the stage has an error, with the reason."""
    more = (
        '[server]\ncommand = ["{python}", "-c", "raise SystemExit(7)"]\n'
        "[bench]\npoints = [[8, 8, 1], [16, 8, 1]]\nrounds = 1\n"
    )
    profile, out = _profile(tmp_path, more=more), ran.up_to("rebuild", tmp_path)
    code, report, said = reported(local(repository, profile, out))
    stages = _by_name(report)
    assert code == 5, said
    for point in ("bench:8/8/1", "bench:16/8/1"):
        assert stages[point]["outcome"] == "error" and stages[point]["job"]
        assert Path(stages[point]["tree"]).is_file()
    assert stages["bench"]["outcome"] == "not run"
    # Both points fail at the same time; the reason names one.
    assert "needs bench:" in stages["bench"]["reason"]
    assert "bench: submitted" not in said


def test_killed_job_is_an_error(ran: Ran, repository: Path, tmp_path: Path) -> None:
    out = ran.up_to("apply", tmp_path)
    with subprocess.Popen(
        local(repository, ran.profile, out),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as verb:  # fmt: skip
        assert verb.stderr and verb.stdout
        for line in verb.stderr:
            if found := re.match(r"verify: submitted as job (\d+)", line):
                _kill_tree(int(found[1]))
                break
        said = verb.stderr.read()
        report = json.loads(verb.stdout.read())
        verb.wait(300)
    stages = _by_name(report)
    assert stages["verify"]["outcome"] == "error"
    assert "no result" in stages["verify"]["reason"]
    assert stages["rebuild"]["outcome"] == "not run", said
    assert report["exit_code"] != 0


def test_interrupt_ends_the_jobs(ran: Ran, repository: Path, tmp_path: Path) -> None:
    out = ran.up_to("verify", tmp_path)
    with subprocess.Popen(
        local(repository, ran.profile, out),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as verb:  # fmt: skip
        assert verb.stderr and verb.stdout
        for line in verb.stderr:
            if line.startswith("rebuild: submitted"):
                break
        time.sleep(2)
        verb.send_signal(signal.SIGINT)
        said = verb.stderr.read()
        assert verb.wait(PATIENCE_S) == 130
    assert "rebuild: cancelling job" in said
    wait_until(lambda: not running(out))


def test_dry_run_shows_waves_and_submits_nothing(tmp_path: Path) -> None:
    done = subprocess.run(
        command(Path("mi355x-glm51"), tmp_path / "run", "--dry-run"),
        capture_output=True, text=True, check=False, timeout=PATIENCE_S,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    waves: dict[int, list[str]] = {}
    for result in json.loads(done.stdout)["results"]:
        waves.setdefault(result["wave"], []).append(result["target"])
        assert result["command"][-3:] == ["--only", result["target"], "--json"]
    assert waves[1] == ["apply"] and waves[2] == ["verify"]
    # With containers, kernels run in the image.
    assert waves[3] == ["rebuild"] and waves[4] == ["numeric", "chain"]
    assert sum(name.startswith("bench:") for name in waves[5]) == 10
    assert waves[6] == ["bench"]
    assert list(tmp_path.iterdir()) == []


def test_without_slurm(tmp_path: Path) -> None:
    done = subprocess.run(
        command(_profile(tmp_path), tmp_path / "run"),
        env={**os.environ, "PATH": "/nonexistent"},
        capture_output=True, text=True, check=False, timeout=PATIENCE_S,
    )  # fmt: skip
    report = json.loads(done.stdout)
    assert done.returncode == report["exit_code"] == 5, done.stderr
    assert "--executor local" in report["findings"][0]["next_step"]


@pytest.mark.parametrize(
    "more", [("--slurm", "account"), ("--slurm", "a=b"), ("--partition", "p")]
)
def test_bad_options(tmp_path: Path, more: tuple[str, str]) -> None:
    words = local(ROOT, _profile(tmp_path), tmp_path / "run", *more)
    code, report, _ = reported(words)
    assert code == 2 and report["message"]


def _kill_tree(pid: int) -> None:
    """Kill the job's controller and its children, as if the node failed."""
    for child, _ in reversed(family(pid)):
        os.kill(child, signal.SIGKILL)
    os.kill(pid, signal.SIGKILL)
