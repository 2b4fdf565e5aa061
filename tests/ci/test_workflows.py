"""The workflows of the tests and the gate: their permissions, and their scripts, run.

GitHub itself is not tested. The scripts call the real gate; ``pip`` and ``gh``, which
need the network, are replaced by scripts that record their arguments.
"""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest
import yaml

from conftest import ROOT
from support.patience import PATIENCE_S

_FOLDER = ROOT / ".github" / "workflows"
_RUNNER = "linux-mi35x-gpu-8"
NAMES = ("tests", "gate")


def load(name: str) -> dict[Any, Any]:
    loaded = yaml.safe_load((_FOLDER / f"{name}.yml").read_text(encoding="utf-8"))
    assert isinstance(loaded, dict)
    return loaded


def steps(name: str) -> list[dict[str, Any]]:
    return [step for job in load(name)["jobs"].values() for step in job["steps"]]


def script(name: str, job: str, step: str) -> str:
    found = {
        one.get("name"): one.get("run") for one in load(name)["jobs"][job]["steps"]
    }
    return str(found[step])


def actionlint(*files: Path) -> subprocess.CompletedProcess[str]:
    """Run actionlint; it finds shellcheck in the PATH. Both are in this environment."""
    tools = Path(sys.executable).parent
    path = f"{tools}:{os.environ['PATH']}"
    program = shutil.which("actionlint", path=path)
    if program is None:
        pytest.skip("no actionlint: the dependency group test has it for x86-64")
    return subprocess.run(
        [program, "-no-color", *map(str, files)], env={**os.environ, "PATH": path},
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_actionlint() -> None:
    """All workflows, including the one for drift."""
    found = sorted(_FOLDER.glob("*.yml"))
    assert len(found) == 3
    done = actionlint(*found)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("needs.plan.outputs.points", "needs.plans.outputs.points", "plans"),
        ("linux-mi35x-gpu-8", "linux-mi35x-gpu-9", "linux-mi35x-gpu-9"),
        ("timeout-minutes", "timeout-minute", "timeout-minute"),
        ("${{ github.token }}", "${{ github.tokens }}", "tokens"),
    ],
)
def test_actionlint_finds_errors(tmp_path: Path, old: str, new: str, said: str) -> None:
    text = (_FOLDER / "gate.yml").read_text(encoding="utf-8")
    assert old in text
    # actionlint reads its settings, which name the runner, from here.
    shutil.copytree(ROOT / ".github", tmp_path / ".github")
    (tmp_path / ".git").mkdir()
    broken = tmp_path / ".github" / "workflows" / "gate.yml"
    broken.write_text(text.replace(old, new), encoding="utf-8")
    done = actionlint(broken)
    assert done.returncode == 1 and said in done.stdout, done.stdout + done.stderr


@pytest.mark.parametrize("name", NAMES)
def test_permissions_are_minimal(name: str) -> None:
    workflow = load(name)
    assert workflow["permissions"] == {}
    allowed = {"contents": "read"}
    for job, what in workflow["jobs"].items():
        more = {"checks": "write"} if job == "verdict" else {}
        assert what["permissions"] == {**allowed, **more}
        assert what["timeout-minutes"] <= 1440


@pytest.mark.parametrize("name", NAMES)
def test_actions_are_pinned(name: str) -> None:
    used = [step["uses"] for step in steps(name) if "uses" in step]
    assert used
    for action in used:
        assert re.fullmatch(r"actions/[a-z-]+@[0-9a-f]{40}", action), action
    text = (_FOLDER / f"{name}.yml").read_text(encoding="utf-8")
    # Each commit has its version in a comment, and each action one commit.
    assert len(re.findall(r"uses: \S+@[0-9a-f]{40} # v\d+\.\d+\.\d+", text)) == len(
        used
    )
    assert len(set(used)) == len({action.partition("@")[0] for action in used})


@pytest.mark.parametrize("name", NAMES)
def test_shell_scripts_parse(name: str) -> None:
    scripts = [step["run"] for step in steps(name) if "run" in step]
    assert scripts
    for text in scripts:
        # No GitHub expressions: a title or a label must not become a command.
        assert "${{" not in text
        done = subprocess.run(
            ["bash", "-n"], input=text, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        shellcheck = Path(sys.executable).with_name("shellcheck")
        if shellcheck.exists():
            done = subprocess.run(
                [str(shellcheck), "--shell=bash", "-"],
                input=text, capture_output=True, text=True, check=False,
            )  # fmt: skip
            assert done.returncode == 0, done.stdout
        for named in re.findall(r"-r (\S+\.txt)", text):
            assert (ROOT / named).is_file()


def test_suite_runs_on_every_supported_python() -> None:
    jobs = load("tests")["jobs"]
    assert jobs["python"]["strategy"]["matrix"]["python"] == [
        "3.10", "3.11", "3.12", "3.13",
    ]  # fmt: skip
    assert "WITHOUT_KERNELS=1" in script("tests", "python", "Test")
    assert (ROOT / script("tests", "suite", "Test").strip()).is_file()


def test_gate_triggers_and_runners() -> None:
    workflow = load("gate")
    on = workflow[True]  # YAML 1.1 reads `on` as a truth value.
    assert on["pull_request"] == {"types": ["labeled"]} and "workflow_dispatch" in on
    jobs = workflow["jobs"]
    gpu = {name for name, job in jobs.items() if job["runs-on"] == _RUNNER}
    assert gpu == {"stages", "bench"}
    # All jobs wait for the plan job, which checks the label.
    assert "github.event.label.name == 'gate'" in jobs["plan"]["if"]
    assert all("plan" in job.get("needs", "") for n, job in jobs.items() if n != "plan")
    assert jobs["bench"]["strategy"]["fail-fast"] is False


# --- the scripts, run -----------------------------------------------------------------


@pytest.fixture
def bin_(tmp_path: Path) -> Path:
    """A PATH folder: python is this Python; pip and gh only record their arguments."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("python", "python3"):
        (folder / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    for name in ("pip", "gh"):
        (folder / name).write_text(
            f'#!/bin/sh\nfor word; do echo "$word"; done >>"{folder}/{name}.called"\n'
        )
    for path in folder.iterdir():
        path.chmod(0o755)
    return folder


def run(text: str, bin_: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """Run a script as GitHub does: in bash, stopping at the first failure."""
    return subprocess.run(
        ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", text],
        env={**os.environ, "PATH": f"{bin_}:{os.environ['PATH']}", **env},
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=PATIENCE_S,
    )  # fmt: skip


def test_plan_matches_the_profile(bin_: Path, tmp_path: Path) -> None:
    output, summary = tmp_path / "output", tmp_path / "summary"
    text = script("gate", "plan", "Plan").replace(
        "plan.json", str(tmp_path / "plan.json")
    )
    done = run(text, bin_, PROFILE="mi355x-glm51", GITHUB_OUTPUT=str(output),
               GITHUB_STEP_SUMMARY=str(summary))  # fmt: skip
    assert done.returncode == 0, done.stderr
    said = dict(line.split("=", 1) for line in output.read_text().splitlines())
    points = json.loads(said["points"])
    assert len(points) == 10 and points[0] == "bench:8192/1024/4"
    assert json.loads(said["first"]) == [
        "apply", "verify", "rebuild", "numeric", "chain", "gsm8k", "traces",
    ]  # fmt: skip
    assert "docker run" in summary.read_text()
    # The plan needs only the core's requirements.
    assert "requirements.txt" in (bin_ / "pip.called").read_text()


def test_stages_are_those_of_the_plan(bin_: Path, tmp_path: Path) -> None:
    called = tmp_path / "venv" / "bin" / "python"
    called.parent.mkdir(parents=True)
    for code, outcome in ((0, 0), (1, 0), (4, 0), (5, 0), (2, 2), (130, 130)):
        called.write_text(f'#!/bin/sh\necho "$@" >"{tmp_path}/called"\nexit {code}\n')
        called.chmod(0o755)
        done = run(
            script("gate", "stages", "Run the stages up to the traces"), bin_,
            PROFILE="p", RUN="r", RUNNER_TEMP=str(tmp_path), STAGES='["a", "b"]',
        )  # fmt: skip
        assert done.returncode == outcome, done.stderr
        words = (tmp_path / "called").read_text().split()
        assert words == [
            "ci/gate.py", "--profile", "p", "--out", "r", "--only=a", "--only=b",
        ]  # fmt: skip


def _packed(path: Path, files: dict[str, bytes]) -> None:
    path.parent.mkdir(parents=True)
    with tarfile.open(path, "w:gz") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(f"./{name}")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))


def _gather(bin_: Path, folder: Path, profile: str, points: str) -> tuple[int, str]:
    """Run the verdict job's script in this folder, like a node's checkout."""
    env = {"PROFILE": profile, "RUN": "run", "POINTS": points}
    files = {name: str(folder / name) for name in ("env", "summary")}
    done = subprocess.run(
        ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c",
         script("gate", "verdict", "Merge the nodes' results and decide")],
        env={**os.environ, "PATH": f"{bin_}:{os.environ['PATH']}", **env,
             "GITHUB_ENV": files["env"], "GITHUB_STEP_SUMMARY": files["summary"]},
        cwd=folder, capture_output=True, text=True, check=False, timeout=PATIENCE_S,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    [code] = re.findall(r"code=(\d+)", Path(files["env"]).read_text())
    return int(code), Path(files["summary"]).read_text()


def test_results_of_all_nodes_become_one_run(bin_: Path, tmp_path: Path) -> None:
    here = tmp_path / "checkout"
    here.mkdir()
    (here / "ci").symlink_to(ROOT / "ci")
    _packed(here / "packed" / "run-stages" / "run.tar.gz",
            {"apply/1/kept": b"first", "gsm8k/1/kept": b"g"})  # fmt: skip
    _packed(here / "packed" / "run-bench-0" / "run.tar.gz",
            {"apply/1/kept": b"second", "bench-8-8-1/1/kept": b"b"})  # fmt: skip
    code, summary = _gather(bin_, here, "cpu", "[]")
    assert code == 4 and "inconclusive" in summary
    found = {
        path.parent.parent.name: path.read_bytes() for path in here.glob("run/*/1/kept")
    }
    assert found == {"apply": b"first", "gsm8k": b"g", "bench-8-8-1": b"b"}
    assert (here / "run" / "report.html").is_file()


@pytest.mark.parametrize("state", ["error", "pass"])
def test_points_are_compared_when_all_are_decided(
    bin_: Path, tmp_path: Path, state: str
) -> None:
    """No point runs on the node that collects results, which has no GPU."""
    here = tmp_path / "checkout"
    here.mkdir()
    points = ["bench:8/8/1", "bench:16/8/2"]
    for number, folder in enumerate(("bench-8-8-1", "bench-16-8-2")):
        result = {"state": state if number else "pass"}
        _packed(here / "packed" / f"run-bench-{number}" / "run.tar.gz",
                {f"{folder}/1/result.json": json.dumps(result).encode()})  # fmt: skip
    gate = tmp_path / "gate.py"
    gate.write_text(
        "import sys; from pathlib import Path; Path('run/report.md').touch(); "
        "Path('called').write_text(' '.join(sys.argv[1:])); sys.exit(4)\n"
    )
    (here / "ci").mkdir()
    shutil.copy(gate, here / "ci" / "gate.py")
    code, _ = _gather(bin_, here, "p", json.dumps(points))
    assert code == 4
    only = "--only=bench " if state == "pass" else ""
    called = (here / "called").read_text()
    assert called == f"--profile p --out run {only}--only=report"


@pytest.mark.parametrize(
    ("code", "conclusion", "exits"),
    [(0, "success", 0), (1, "failure", 1), (4, "neutral", 0), (5, "failure", 5)],
)
def test_inconclusive_is_neutral(
    bin_: Path, tmp_path: Path, code: int, conclusion: str, exits: int
) -> None:
    (tmp_path / "report.md").write_text("# the report\n", encoding="utf-8")
    text = script("gate", "verdict", "Publish the verdict")
    done = subprocess.run(
        ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", text],
        env={**os.environ, "PATH": f"{bin_}:{os.environ['PATH']}", "CODE": str(code),
             "RUN": ".", "PROFILE": "p", "REPOSITORY": "o/r", "COMMIT": "c" * 40},
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == exits, done.stderr
    called = (bin_ / "gh.called").read_text().splitlines()
    assert f"conclusion={conclusion}" in called and "repos/o/r/check-runs" in called
    assert (tmp_path / "summary.md").read_text() == "# the report\n"
