"""A profile is right in every word, or nothing starts: said by file and key."""

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
def test_every_shipped_one_loads(name: str) -> None:
    profile = load(name)
    assert profile.name == name and profile.about


def test_a_whole_one_loads(tmp_path: Path) -> None:
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
def test_an_unknown_key_anywhere(section: str, tmp_path: Path) -> None:
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
        # Sections that need or exclude one another.
        ('[container]\nimage = "upstream/image:1"\n', "", "needs [container]"),
        ('path = "/a/model"', "", "either path or package"),
        ('path = "/a/model"', 'path = "/a/model"\npackage = "b"', "either path or"),
        ('path = "/a/model"', 'package = "b"', "[model] package needs"),
        ('[rebuild]\nmode = "container"\n', "", "[gsm8k] needs [server] and [rebuild]"),
        ('mode = "container"', 'mode = "venv"', "venv takes no [container]"),
        ('[model]\npath = "/a/model"\n', "", "no [model]"),
        ('"{model}"]', '"{modle}"]', "server: nothing is known as {modle}"),
        ('"{traces}"]', '"{url}"]', "traces: nothing is known as {url}"),
        ('A = "1"', 'A = "{traces}"', "server: nothing is known as {traces}"),
        # A path there would be a part of a program.
        (
            'client = ["profile", ',
            'client = ["bash", "-euc", "rm {traces}", ',
            "traces: {traces} stands within a script",
        ),
        (
            'command = ["serve", ',
            'command = ["env", "/bin/sh", "-x", "-c", "cat {model}", ',
            "server: {model} stands within a script",
        ),
        (
            'command = ["serve", ',
            'command = ["{python}", "-c", "print({port})", ',
            "server: {port} stands within a script",
        ),
        ('A = "1"', '"A=1;x" = "1"', "'A=1;x' is not the name of a variable"),
        ("points =", 'options = "it\'s"\npoints =', "bench.options is no command"),
        ("upstream/image:1", "--privileged", "$.container.image"),
        ("deadline_s = 5", 'health = "@elsewhere/"', "$.server.health"),
        ("questions = 8", f"questions = {10**12}", "$.gsm8k.questions"),
        ("questions = 8", f"questions = {'1' * 5000}", "not a profile"),
        ("questions = 8", f"questions = {'[' * 9999}", "nested too deeply"),
        ("[[8, 8, 1]]", "[[8, 8, 1], [8, 8, 1]]", "bench.points"),
        ("layers = 2", 'layers = 2\n[not_run]\ntraces = "?"', "which has its section"),
        ("layers = 2", 'layers = 2\n[not_run]\ntarces = "?"', "no stage tarces"),
    ],
)
def test_what_is_wrong_is_named(was: str, now: str, said: str, tmp_path: Path) -> None:
    assert WHOLE.count(was) == 1
    told = refused(written(tmp_path, WHOLE.replace(was, now)))
    assert "mine.toml" in told and said in told


def test_no_such_profile(tmp_path: Path) -> None:
    told = refused("no-such")
    assert all(name in told for name in SHIPPED)
    assert "mine.toml" in refused(tmp_path / "mine.toml")


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_bytes(b'about = "\xff"\n')
    assert "mine.toml" in refused(path)


@pytest.mark.parametrize("more", [[], ["--dry-run"], ["--json"]])
def test_nothing_starts(more: list[str], tmp_path: Path) -> None:
    path, out = written(tmp_path, WHOLE.replace("questions", "qestions")), "run"
    gate = [sys.executable, str(ROOT / "ci" / "gate.py"), *more]
    done = subprocess.run(
        [*gate, "--profile", str(path), "--out", str(tmp_path / out)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    told = done.stdout + done.stderr
    assert "mine.toml" in told and "qestions" in told
    assert not (tmp_path / out).exists()
