"""``ci/rebuild.py venv``: both arms built from real packages, compared by file."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from conftest import ROOT, Pins, give_modules
from support.ci_verb import reported
from support.patience import PATIENCE_S

pytestmark = pytest.mark.slow("packages are installed into both arms")

_VERB = ROOT / "ci" / "rebuild.py"
Arms = dict[str, dict[str, Any]]


def command(arm: str, out: Path, *arguments: str) -> list[str]:
    words = [sys.executable, str(_VERB), "venv", "--arm", arm, "--out", str(out)]
    return [*words, *arguments, "--json"]


def rebuild(arm: str, out: Path, *arguments: str) -> tuple[int, dict[str, Any]]:
    return reported(command(arm, out, *arguments))[:2]


def site_of(out: Path) -> Path:
    [site] = out.glob("lib/python3.*/site-packages")
    return site


@pytest.fixture(scope="module")
def folder(pins: Pins, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of both arms. Shared: a test that changes an arm restores it."""
    return tmp_path_factory.mktemp("arms")


@pytest.fixture(scope="module")
def arms(folder: Path) -> Arms:
    made = {}
    for arm in ("baseline", "patched"):
        code, report = rebuild(arm, folder / arm)
        assert code == 0, report
        [made[arm]] = report["results"]
    return made


def _contents(site: Path) -> dict[str, bytes]:
    return {
        path.relative_to(site).as_posix(): path.read_bytes()
        for path in site.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def test_arms_differ_in_the_series_alone(arms: Arms, folder: Path, pins: Pins) -> None:
    before, after = (_contents(site_of(folder / arm)) for arm in arms)
    differ = {
        path
        for path in before.keys() | after.keys()
        if before.get(path) != after.get(path) and not path.endswith("/RECORD")
    }
    series = {
        pins.overlay[name].target.site_layout().inside(path)
        for name in ("sglang", "aiter")
        for path in pins.overlay[name].paths
    } - {None}  # paths outside the package
    assert differ == series == set(arms["patched"]["differs"])
    assert "differs" not in arms["baseline"]


def test_result_describes_the_arm(arms: Arms, folder: Path, pins: Pins) -> None:
    for arm, result in arms.items():
        assert result["outcome"] == "made" and result["arm"] == arm
        dists = [pins.overlay[name].lock.dist for name in ("sglang", "aiter")]
        digests = [dist.sha256 for dist in dists if dist is not None]
        assert sorted(result["packages"].values()) == sorted(digests)
        assert result["reinstalled"] == ["sglang 0.5.11", "amd-aiter 0.1.7.post2.dev18"]
    assert arms["patched"]["digests"].keys() == {"sglang", "aiter"}
    before, after = (arms[arm]["digests"] for arm in arms)
    assert all(before[name] != after[name] for name in after)
    assert after["aiter"] == pins.overlay["aiter"].lock.tree
    assert arms["baseline"]["series"] == "none"
    assert len(arms["patched"]["series"]) == 64


def test_arms_are_importable_without_pytorch(arms: Arms, folder: Path) -> None:
    ask = (
        "from importlib.util import find_spec as f; import json; print(json.dumps("
        "[s and s.origin for s in map(f, ('sglang', 'aiter', 'torch', 'pip'))]))"
    )
    for arm in arms:
        python = str(folder / arm / "bin" / "python")
        said = subprocess.check_output([python, "-I", "-c", ask], text=True)
        sglang, aiter, torch, pip = json.loads(said)
        site = str(site_of(folder / arm))
        assert sglang.startswith(site) and aiter.startswith(site)
        assert torch is None and pip is None


def test_complete_arm_is_kept(arms: Arms, folder: Path) -> None:
    out = folder / "patched"
    before = (out / "pyvenv.cfg").stat().st_mtime_ns
    code, report = rebuild("patched", out)
    [again] = report["results"]
    assert code == 0 and again == {**arms["patched"], "outcome": "as it was made"}
    assert (out / "pyvenv.cfg").stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("arm", "path", "what"),
    [
        ("patched", "sglang/srt/server_args.py", "the file differs from the release"),
        (
            "patched",
            "sglang/srt/layers/quantization/fp8_utils.py",
            "is not the patched file",
        ),
        (
            "baseline",
            "sglang/srt/layers/quantization/fp8_utils.py",
            "the file differs from the release",
        ),
        ("baseline", "aiter/more.py", "the file differs from the release"),
    ],
)
def test_changed_arm_is_refused(
    arms: Arms, folder: Path, arm: str, path: str, what: str
) -> None:
    place = site_of(folder / arm) / path
    before = place.read_bytes() if place.exists() else None
    place.write_bytes((before or b"") + b"\n# more\n")
    try:
        code, report = rebuild(arm, folder / arm)
    finally:
        if before is None:
            place.unlink()
        else:
            place.write_bytes(before)
    assert code == 1
    found = {finding["what"] for finding in report["findings"]}
    assert what in found, found
    assert any(path in (f["path"] or "") for f in report["findings"])


def test_foreign_folder_is_left_alone(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "work.txt").write_text("mine", encoding="utf-8")
    code, report = rebuild("baseline", out)
    assert code == 2 and "in the way" in report["message"]
    assert (out / "work.txt").read_text(encoding="utf-8") == "mine"


def test_dry_run_writes_nothing(tmp_path: Path) -> None:
    code, report = rebuild("patched", tmp_path / "out", "--dry-run")
    assert code == 0 and report["results"][0]["outcome"] == "would be made"
    assert list(tmp_path.iterdir()) == []


def _interrupted(out: Path, number: signal.Signals) -> int:
    """Interrupt the verb while it installs AITER; returns its exit code."""
    with subprocess.Popen(
        command("patched", out),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as verb:
        assert verb.stderr
        for line in verb.stderr:
            if line.startswith("installing amd_aiter"):
                time.sleep(0.5)
                os.killpg(verb.pid, number)
                break
        verb.stderr.read()
        return verb.wait(PATIENCE_S)


def test_incomplete_arm_is_made_again(tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert _interrupted(out, signal.SIGKILL) == -signal.SIGKILL
    assert json.loads((out / "rebuild.json").read_text())["whole"] is False
    code, report = rebuild("patched", out)
    assert code == 0 and report["results"][0]["outcome"] == "made"


def test_interrupt_leaves_nothing(tmp_path: Path) -> None:
    assert _interrupted(tmp_path / "out", signal.SIGINT) == 130
    assert list(tmp_path.iterdir()) == []


def _another_python() -> str | None:
    root = Path(os.environ.get("PYENV_ROOT", Path("~/.pyenv").expanduser()))
    for minor in (10, 12, 13):
        if minor == sys.version_info.minor:
            continue
        found = [shutil.which(f"python3.{minor}")]
        found += map(str, root.glob(f"versions/3.{minor}.*/bin/python"))
        for python in filter(None, found):
            # pyenv has shims even for missing versions.
            if not subprocess.run([python, "-c", ""], capture_output=True).returncode:
                return python
    return None


# Found at import, before a fixture changes HOME.
_OTHER = _another_python()


@pytest.mark.skipif(_OTHER is None, reason="no other Python from 3.10 on is found")
def test_with_another_python(tmp_path: Path, arms: Arms) -> None:
    """SGLang's package is built for 3.11; its sources work with any version."""
    assert _OTHER
    code, report = rebuild("patched", tmp_path / "out", "--python", _OTHER)
    assert code == 0, report
    [result] = report["results"]
    assert result["digests"] == arms["patched"]["digests"]
    assert result["differs"] == arms["patched"]["differs"]
    assert result["python"] != arms["patched"]["python"]


def test_missing_python(tmp_path: Path) -> None:
    code, report = rebuild("baseline", tmp_path / "out", "--python", "no-such-python")
    assert code == 5 and "no-such-python" in report["message"]
    assert list(tmp_path.iterdir()) == []


def test_stale_lock_is_refused(overlay: Path, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "ci", give_modules(overlay) / "ci")
    [patch] = (overlay / "patches" / "aiter").glob("*.patch")
    patch.write_bytes(patch.read_bytes().replace(b"Store ", b"Keep "))
    done = subprocess.run(
        [sys.executable, str(overlay / "ci" / "rebuild.py"), "venv", "--arm", "patched",
         "--out", str(tmp_path / "out"), "--json"],
        capture_output=True, text=True, check=False, timeout=PATIENCE_S,
    )  # fmt: skip
    report = json.loads(done.stdout)
    assert done.returncode == report["exit_code"] == 2
    assert "overlay.lock is stale" in report["message"]
    assert not (tmp_path / "out").exists()
