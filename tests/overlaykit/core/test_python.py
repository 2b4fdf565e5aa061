"""Python modules run as processes in a folder with hostile modules."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from conftest import ROOT
from overlaykit.core.python import module_command

_ASK = """
import sys
sys.path.insert(0, sys.argv[1])
from xscale.doctor.machine import facts
print(sorted(facts()))
"""


def hostile_folder(tmp_path: Path) -> tuple[Path, Path]:
    """A folder with modules that write a file when they run, and that file."""
    folder, mark = tmp_path / "clone", tmp_path / "mark"
    folder.mkdir()
    text = f"open({str(mark)!r}, 'w').close()\n"
    for name in ("json", "subprocess", "runpy", "torch", "triton", "xscale", "tool"):
        (folder / f"{name}.py").write_text(text, encoding="utf-8")
    return folder, mark


def test_working_directory_is_not_searched_for_modules(tmp_path: Path) -> None:
    folder, mark = hostile_folder(tmp_path)
    done = subprocess.run(
        module_command("json.tool", "--compact"), cwd=folder, input='{ "a": 1 }',
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, '{"a":1}\n'), done.stderr
    assert not mark.exists()
    done = subprocess.run(
        module_command("tool"), cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1 and "No module named tool" in done.stderr
    # PYTHONPATH is the user's own setting, so it is used.
    own = tmp_path / "own"
    own.mkdir()
    shutil.copy2(folder / "tool.py", own)
    env = {**os.environ, "PYTHONPATH": str(own)}
    subprocess.run(module_command("tool"), cwd=tmp_path, env=env, check=True)
    assert mark.exists()


def test_doctor_loads_nothing_from_the_working_directory(tmp_path: Path) -> None:
    folder, mark = hostile_folder(tmp_path)
    (tmp_path / "ask.py").write_text(_ASK, encoding="utf-8")
    command = [sys.executable, str(tmp_path / "ask.py"), str(ROOT / "scripts")]
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert not mark.exists()
