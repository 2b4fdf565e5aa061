"""Whatever a run directory, a model or an image is called, it stays one word of every
command that the gate runs, prints or hands on."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from conftest import ROOT
from gatekit.records.stage import Serve, Step, filled, joined, placeholders
from gatekit.run.pipeline import Pipeline
from gatekit.run.profile import Profile, load
from gatekit.run.store import Store
from gatekit.run.subject import subject
from overlaykit.core.errors import InputError

# One folder's name each.
NAMES = [
    "a b",
    "it's",
    'say "x"',
    "$(touch made)",
    "`touch made`",
    "; touch made #",
    "line\ntouch made",
    "-rf",
    "{port} {folder}",
    "\x1b[2Jx",
    "*?[a]~",
]
_SAY = "import json, sys; json.dump(sys.argv[1:], open(sys.argv[1] + '/said', 'w'))"


@pytest.mark.parametrize("name", NAMES)
def test_a_command_within_a_command_keeps_its_words(name: str, tmp_path: Path) -> None:
    """A benchmark is told how to start its servers in one word."""
    known = placeholders(tmp_path / name / "stage" / "key", 5000)
    words = ("serve", "--out={out}", "{folder}/it's", "{port}", '{"a": {"b": 1}}', "")
    line = Serve(words, {"WHERE": "{folder}"}).line
    given = ["env", f"WHERE={known['folder']}"]
    assert shlex.split(filled(line, known)) == [
        *given,
        *(filled(word, known) for word in words),
    ]
    # A shell's own variables, and what nobody knows, stay.
    assert filled("${folder} {nobody} {0}", known) == "${folder} {nobody} {0}"
    assert filled(joined(["{nobody}"]), known) == "'{nobody}'"


@pytest.mark.parametrize("name", NAMES)
def test_what_a_dry_run_prints_can_be_pasted(name: str, tmp_path: Path) -> None:
    folder = tmp_path / name / "stage" / "key"
    folder.mkdir(parents=True)
    step = Step(
        "say",
        (sys.executable, "-c", _SAY, "{folder}", "{folder}/$x", "{out}"),
        {"WHERE": "{folder}"},
        remove=(("echo", "{folder}"),),
    )
    lines = step.lines(placeholders(folder, 5000))
    here = tmp_path / "here"
    here.mkdir()
    done = subprocess.run(
        ["bash", "-e"], input="\n".join(lines), cwd=here, text=True, capture_output=True
    )
    assert done.returncode == 0, done.stderr
    said = json.loads((folder / "said").read_text())
    assert said == [str(folder), f"{folder}/$x", str(tmp_path / name)]
    assert not list(here.iterdir())
    assert all(c.isprintable() or c in "\n\t" for line in lines for c in line)


@pytest.fixture
def full() -> Profile:
    return load("mi355x-glm51")


def planned(profile: Profile, out: Path) -> Pipeline:
    return Pipeline(profile, subject(ROOT, profile), Store(out))


@pytest.mark.parametrize("name", ["a b", "it's", "$(touch made)"])
def test_every_command_of_the_full_plan_keeps_its_words(
    name: str, full: Profile, tmp_path: Path
) -> None:
    """Not one path of it within a script: only as words, and whole."""
    assert full.model is not None
    model = msgspec.structs.replace(full.model, path=str(tmp_path / f"model {name}"))
    profile = msgspec.structs.replace(full, model=model)
    plan = planned(profile, tmp_path / name)
    out = str(tmp_path / name)
    for stage in plan.stages.values():
        known = placeholders(plan.folder(stage.name), 5000)
        for step in stage.steps:
            for number, word in enumerate(step.command):
                value = filled(word, known)
                if step.command[number - 1].endswith("c") and "\n" in word:
                    assert out not in value, "within a script"
                if step.command[number - 1] in ("--baseline-start", "--patched-start"):
                    assert f"--volume={out}:{out}" in shlex.split(value)
                    assert str(model.path) in shlex.split(value)
    [bench] = [s for n, s in plan.stages.items() if n == "bench:8192/1024/4"]
    [run] = bench.steps
    [options] = [w for w in run.command if w.startswith("--client-options=")]
    told = shlex.split(filled(options.partition("=")[2], {}))
    assert all("model " not in word or word == model.path for word in told)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("run {port}", "stands for something else"),
        ("a:b", "ends a path at a colon"),
    ],
)
def test_a_place_that_would_be_another_is_refused(
    name: str, said: str, full: Profile, tmp_path: Path
) -> None:
    with pytest.raises(InputError) as caught:
        planned(full, tmp_path / name)
    assert said in str(caught.value)
    assert full.model is not None
    model = msgspec.structs.replace(full.model, path=f"/models/{name}")
    with pytest.raises(InputError):
        planned(msgspec.structs.replace(full, model=model), tmp_path)
