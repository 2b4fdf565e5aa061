"""An error in a profile names the file and the key, and nothing starts."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import ROOT
from gatekit.run.profile import FOLDER, load
from overlaykit.core.errors import InputError

SHIPPED = sorted(path.stem for path in FOLDER.glob("*.toml"))
WHOLE = """\
about = "whole"
[numeric]
device = "cpu"
[rebuild]
mode = "container"
[container]
image = "upstream/image:1"
[chain]
interpreted = true
[model]
path = "/a/model"
[server]
command = ["serve", "{model}"]
deadline_s = 5
[server.environment]
A = "1"
[gsm8k]
questions = 8
parallelism = 2
order = "AB"
[traces]
client = ["profile", "{port}", "${traces}", "{traces}"]
layers = 2
[bench]
points = [[8, 8, 1]]
"""


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_profile_loads(name: str) -> None:
    profile = load(name)
    assert profile.name == name and profile.about


def test_valid_profile_loads(tmp_path: Path) -> None:
    assert load(str(written(tmp_path, WHOLE))).name == "mine"


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "mine.toml"
    path.write_text(text, encoding="utf-8")
    return path


def refused(path: Path | str) -> str:
    with pytest.raises(InputError) as caught:
        load(str(path))
    return str(caught.value)


SECTIONS = re.findall(r"^\[(\w+)\]$", WHOLE, re.MULTILINE)


@pytest.mark.parametrize("section", ["", *SECTIONS])
def test_unknown_key_in_every_section(section: str, tmp_path: Path) -> None:
    head = f"[{section}]\n" if section else 'about = "whole"\n'
    text = WHOLE.replace(head, f"{head}wrnog = 1\n", 1)
    assert text != WHOLE
    said = refused(written(tmp_path, text))
    assert "mine.toml" in said and "`wrnog`" in said
    assert not section or f"$.{section}" in said


@pytest.mark.parametrize(
    ("was", "now", "said"),
    [
        ("questions = 8", 'questions = "8"', "$.gsm8k.questions"),
        ("questions = 8", "questions = 0", "$.gsm8k.questions"),
        ("questions = 8\n", "", "`questions`"),
        ('order = "AB"', 'order = "AA"', "$.gsm8k.order"),
        ('order = "AB"', 'order = "ABC"', "$.gsm8k.order"),
        ('device = "cpu"', 'device = "rocm"', "$.numeric.device"),
        ('mode = "container"', 'mode = "conda"', "$.rebuild.mode"),
        ("points = [[8, 8, 1]]", "points = [[8, 8]]", "$.bench.points"),
        ("points = [[8, 8, 1]]", "points = []", "$.bench.points"),
        ('command = ["serve", "{model}"]', "command = []", "$.server.command"),
        ('command = ["serve", "{model}"]', 'command = "serve"', "$.server.command"),
        ('A = "1"', "A = 1", "$.server.environment"),
        ("deadline_s = 5", "deadline_s = 5\nport = 70000", "$.server.port"),
        ("layers = 2", "layers = -1", "$.traces.layers"),
        ('about = "whole"', "", "`about`"),
        ("[numeric]", "[numeric", "line"),
        # Sections that need or exclude each other.
        ('[container]\nimage = "upstream/image:1"\n', "", "needs [container]"),
        ('path = "/a/model"', "", "either path or package"),
        ('path = "/a/model"', 'path = "/a/model"\npackage = "b"', "either path or"),
        ('path = "/a/model"', 'package = "b"', "[model] package needs"),
        ('[rebuild]\nmode = "container"\n', "", "[gsm8k] needs [server] and [rebuild]"),
        ('mode = "container"', 'mode = "venv"', "venv does not use [container]"),
        ('[model]\npath = "/a/model"\n', "", "but there is no [model]"),
        ('"{model}"]', '"{modle}"]', "server: unknown placeholder {modle}"),
        ('"{traces}"]', '"{url}"]', "traces: unknown placeholder {url}"),
        ('A = "1"', 'A = "{traces}"', "server: unknown placeholder {traces}"),
        # A path there would become part of a script.
        (
            'client = ["profile", ',
            'client = ["bash", "-euc", "rm {traces}", ',
            "traces: {traces} is inside a script",
        ),
        (
            'command = ["serve", ',
            'command = ["env", "/bin/sh", "-x", "-c", "cat {model}", ',
            "server: {model} is inside a script",
        ),
        (
            'command = ["serve", ',
            'command = ["{python}", "-c", "print({port})", ',
            "server: {port} is inside a script",
        ),
        ('A = "1"', '"A=1;x" = "1"', "'A=1;x' is not a variable name"),
        ("points =", 'options = "it\'s"\npoints =', "bench.options is not a command"),
        ("upstream/image:1", "--privileged", "$.container.image"),
        ("deadline_s = 5", 'health = "@elsewhere/"', "$.server.health"),
        ("questions = 8", f"questions = {10**12}", "$.gsm8k.questions"),
        ("questions = 8", f"questions = {'1' * 5000}", "not a profile"),
        ("questions = 8", f"questions = {'[' * 9999}", "nested too deeply"),
        ("[[8, 8, 1]]", "[[8, 8, 1], [8, 8, 1]]", "bench.points"),
        ("layers = 2", 'layers = 2\n[not_run]\ntraces = "?"', "which has a section"),
        ("layers = 2", 'layers = 2\n[not_run]\ntarces = "?"', "no stage tarces"),
    ],
)
def test_error_names_file_and_key(
    was: str, now: str, said: str, tmp_path: Path
) -> None:
    assert WHOLE.count(was) == 1
    message = refused(written(tmp_path, WHOLE.replace(was, now)))
    assert "mine.toml" in message and said in message


def test_unknown_profile(tmp_path: Path) -> None:
    message = refused("no-such")
    assert all(name in message for name in SHIPPED)
    assert "mine.toml" in refused(tmp_path / "mine.toml")


def test_profile_that_is_not_utf8(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_bytes(b'about = "\xff"\n')
    assert "mine.toml" in refused(path)


@pytest.mark.parametrize("more", [[], ["--dry-run"], ["--json"]])
def test_invalid_profile_starts_nothing(more: list[str], tmp_path: Path) -> None:
    path, out = written(tmp_path, WHOLE.replace("questions", "qestions")), "run"
    gate = [sys.executable, str(ROOT / "ci" / "gate.py"), *more]
    done = subprocess.run(
        [*gate, "--profile", str(path), "--out", str(tmp_path / out)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    output = done.stdout + done.stderr
    assert "mine.toml" in output and "qestions" in output
    assert not (tmp_path / out).exists()
