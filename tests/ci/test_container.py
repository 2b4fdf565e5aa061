"""``ci/rebuild.py container``: its recipe, run on real trees without an engine.

No image is built. The recipe's instructions and scripts run in a folder with the layout
of the image; docker itself is not tested.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from conftest import ROOT, run_verb
from support.ci_verb import reported

pytestmark = pytest.mark.slow("packages are installed into both arms")

_CONTAINER = ROOT / "ci" / "container"
_ENGINE = ROOT / "tests" / "support" / "container_engine.py"
_DIGEST = "base@sha256:" + "5" * 64


@dataclass
class Engine:
    """A folder with the base image's trees, and the verb that builds from them."""

    root: Path

    def tree(self, image: str, name: str) -> Path:
        return self.root / image / "sgl-workspace" / name

    def rebuild(self, arm: str, *more: str, **env: str) -> tuple[int, dict[str, Any]]:
        code, report, said = reported(
            [sys.executable, str(ROOT / "ci" / "rebuild.py"), "container", "--arm", arm,
             "--image", "base:1", "--tag", arm, *more, "--json"],
            {**os.environ, "ENGINE_ROOT": str(self.root), **env,
             "PATH": f"{self.root / 'bin'}:{os.environ['PATH']}"},
        )  # fmt: skip
        return code, {**report, "said": said}

    def labels(self, image: str) -> dict[str, str]:
        found: dict[str, str] = json.loads(
            (self.root / image / "labels.json").read_text()
        )
        return {key.rpartition(".")[2]: value for key, value in found.items()}

    def calls(self) -> list[list[str]]:
        lines = (self.root / "calls.jsonl").read_text().splitlines()
        return [json.loads(line) for line in lines]


@pytest.fixture
def engine(slim: Callable[..., Path], tmp_path: Path) -> Engine:
    """Upstream's released trees, at the paths in its images."""
    root = tmp_path / "engine"
    for name in ("sglang", "aiter"):
        place = root / "base" / "sgl-workspace" / name
        shutil.copytree(slim(name, name), place)
    # Upstream's recipe replaces files in its clone that are not in the series.
    (root / "base" / "sgl-workspace" / "sglang" / "python" / "pyproject.toml").touch()
    (root / "bin").mkdir()
    for name, words in (("python3", ""), ("docker", f'"{_ENGINE}"')):
        script = root / "bin" / name
        script.write_text(f'#!/bin/sh\nexec "{sys.executable}" {words} "$@"\n')
        script.chmod(0o755)
    return Engine(root)


def _status(tree: Path) -> str:
    done = run_verb("apply", "--status", "--json", str(tree))
    return str(json.loads(done.stdout)["results"][0]["outcome"])


def test_both_arms(engine: Engine) -> None:
    """Builds both arms, and checks that a dry run prints the commands that ran."""
    results = {}
    for arm in ("baseline", "patched"):
        code, report = engine.rebuild(arm)
        assert code == 0, report["said"]
        [results[arm]] = report["results"]
        assert results[arm]["outcome"] == "built"
        assert results[arm]["base"] == engine.labels(arm)["base"] == _DIGEST
        assert results[arm]["id"] == f"sha256:{arm}"
    trees = ("sglang", "aiter")
    assert [_status(engine.tree("baseline", name)) for name in trees] == [
        "pristine"
    ] * 2
    assert [_status(engine.tree("patched", name)) for name in trees] == ["applied"] * 2
    labels = engine.labels("patched")
    assert labels["series"] == results["patched"]["series"]
    assert (labels["arm"], labels["aiter"]) == ("patched", "carried")
    assert engine.labels("baseline")["series"] == "none"
    # The image keeps the doctor's report.
    doctor = (engine.root / "patched/opt/pretransposed-x-scale/doctor.txt").read_text()
    assert "transposed and marked" in doctor

    code, report = engine.rebuild("patched", "--dry-run")
    assert code == 0 and report["results"][0]["outcome"] == "would be built"
    lines = report["results"][0]["commands"]
    [build] = [line for line in lines if " build " in line]
    by_digest = build.replace("IMAGE=base:1", f"IMAGE={_DIGEST}")
    assert shlex.split(by_digest)[1:] in engine.calls()
    assert lines[0] == "docker image inspect base:1 || docker pull base:1"
    called = [shlex.join(["docker", *call]) for call in engine.calls()]
    assert called[:3] == [lines[0].split(" || ")[n] for n in (0, 1, 0)]


def test_another_release_of_aiter_is_refused(engine: Engine) -> None:
    module = "aiter/ops/triton/fused_fp8_quant.py"
    place = engine.tree("base", "aiter") / module
    place.write_bytes(place.read_bytes() + b"\n# another release\n")
    code, report = engine.rebuild("patched")
    assert code == 1
    assert "--aiter image" in report["findings"][0]["next_step"]
    assert module in report["said"]
    assert not (engine.root / "patched").exists()

    code, report = engine.rebuild("patched", "--aiter", "image")
    assert code == 0, report["said"]
    assert engine.labels("patched")["aiter"] == "image"
    assert _status(engine.tree("patched", "sglang")) == "applied"
    assert (engine.tree("patched", "aiter") / module).read_bytes() == place.read_bytes()


def test_python_imports_the_changed_trees(engine: Engine, tmp_path: Path) -> None:
    """Otherwise the image would silently serve without the series."""
    other = tmp_path / "site" / "sglang"
    other.mkdir(parents=True)
    (other / "__init__.py").touch()
    code, report = engine.rebuild("patched", ENGINE_ELSEWHERE=str(other.parent))
    assert code == 1 and f"Python imports sglang from {other}" in report["said"]


def test_patched_image_is_refused_as_baseline(engine: Engine) -> None:
    done = run_verb("apply", str(engine.tree("base", "sglang")))
    assert done.returncode == 0, done.stderr
    code, report = engine.rebuild("baseline")
    assert code == 1 and "is not a baseline" in report["said"]


def test_unknown_producer_fails_at_verify(engine: Engine) -> None:
    """A new producer's call, in a file that the series does not change."""
    module = "python/sglang/srt/layers/quantization/more.py"
    (engine.tree("base", "sglang") / module).write_text(
        "from aiter.x import fused_rms_fp8_group_quant as rms\n"
        "def more(x):\n"
        "    return rms(x, transpose_scale=False)\n"
    )
    code, report = engine.rebuild("patched")
    assert code == 1
    assert module in report["said"] and not (engine.root / "patched").exists()


def test_missing_engine(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "ci" / "rebuild.py"), "container", "--arm",
         "baseline", "--image", "a", "--tag", "b", "--engine", "podman", "--json"],
        env={**os.environ, "PATH": str(tmp_path)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 5, done.stderr
    assert "cannot run podman" in json.loads(done.stdout)["message"]


# --- the files themselves -------------------------------------------------------------


@pytest.mark.parametrize(
    ("tool", "file"), [("hadolint", "Dockerfile"), ("shellcheck", "arm.sh")]
)
def test_linted(tool: str, file: str) -> None:
    found = shutil.which(tool) or shutil.which(
        tool, path=str(Path(sys.executable).parent)
    )
    if found is None:
        pytest.skip(
            f"{tool} is not installed: the dependency group test has it for x86-64"
        )
    done = subprocess.run(
        [found, str(_CONTAINER / file)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_dockerignore_allows_everything_that_is_copied() -> None:
    recipe = (_CONTAINER / "Dockerfile").read_text(encoding="utf-8")
    ignored = (_CONTAINER / "Dockerfile.dockerignore").read_text(encoding="utf-8")
    copied = [
        source
        for line in re.findall(r"(?m)^COPY (.+)$", recipe)
        for source in line.split()[:-1]
    ]
    assert len(copied) == 7
    for source in copied:
        assert f"\n!{source}\n" in ignored
        assert (ROOT / source).exists()
    # The script keeps its executable bit in the image.
    assert os.access(_CONTAINER / "arm.sh", os.X_OK)
