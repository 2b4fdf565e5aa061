"""Names with spaces, quotes or shell syntax stay one word in every command that the
gate runs, prints or passes on."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from conftest import ROOT
from gatekit.records.stage import Serve, Step, command_line, filled, placeholders
from gatekit.run.pipeline import Pipeline
from gatekit.run.profile import Profile, load
from gatekit.run.store import Store
from gatekit.run.subject import subject
from overlaykit.core.errors import InputError

# Names of folders.
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
def test_nested_command_keeps_its_words(name: str, tmp_path: Path) -> None:
    """A benchmark receives the command that starts its server as one word."""
    known = placeholders(tmp_path / name / "stage" / "key", 5000)
    words = ("serve", "--out={out}", "{folder}/it's", "{port}", '{"a": {"b": 1}}', "")
    line = Serve(words, {"WHERE": "{folder}"}).line
    given = ["env", f"WHERE={known['folder']}"]
    assert shlex.split(filled(line, known)) == [
        *given,
        *(filled(word, known) for word in words),
    ]
    # Shell variables and unknown placeholders stay.
    assert filled("${folder} {nobody} {0}", known) == "${folder} {nobody} {0}"
    assert filled(command_line(["{nobody}"]), known) == "'{nobody}'"


@pytest.mark.parametrize("name", NAMES)
def test_printed_commands_can_be_pasted(name: str, tmp_path: Path) -> None:
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
    """No path is inside a script; each path is a whole word."""
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
                    assert out not in value, "inside a script"
                if step.command[number - 1] in ("--baseline-start", "--patched-start"):
                    assert f"--volume={out}:{out}" in shlex.split(value)
                    assert str(model.path) in shlex.split(value)
    [bench] = [s for n, s in plan.stages.items() if n == "bench:8192/1024/4"]
    [run] = bench.steps
    [options] = [w for w in run.command if w.startswith("--client-options=")]
    words = shlex.split(filled(options.partition("=")[2], {}))
    assert all("model " not in word or word == model.path for word in words)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("run {port}", "contains a profile's placeholder"),
        ("a:b", "contains a colon"),
    ],
)
def test_ambiguous_path_is_refused(
    name: str, said: str, full: Profile, tmp_path: Path
) -> None:
    with pytest.raises(InputError) as caught:
        planned(full, tmp_path / name)
    assert said in str(caught.value)
    assert full.model is not None
    model = msgspec.structs.replace(full.model, path=f"/models/{name}")
    with pytest.raises(InputError):
        planned(msgspec.structs.replace(full, model=model), tmp_path)
