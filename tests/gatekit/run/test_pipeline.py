"""The plan: keys depend on what matters, needs come first, verbs accept every command.

No stage runs here, except in the one test that runs the output of a dry run.
"""

from __future__ import annotations

import json
import re
import runpy
import shlex
import shutil
import subprocess
from argparse import ArgumentParser
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import pytest

from conftest import ROOT
from gatekit.process.launcher import free_port
from gatekit.records.stage import Serve, Step
from gatekit.run.pipeline import Pipeline
from gatekit.run.profile import FOLDER, Profile, load
from gatekit.run.runner import Runner
from gatekit.run.store import Store
from gatekit.run.subject import subject
from support.gate_runs import (
    REBUILD,
    SCRIPTED,
    Copy,
    another,
    answers,
    gsm8k,
    profile,
    served,
)
from support.patience import PATIENCE_S
from support.processes import running

SHIPPED = sorted(path.stem for path in FOLDER.glob("*.toml"))
FULL = "mi355x-glm51"
VERB = re.compile(r"(scripts|ci)/\w+\.py")


@pytest.fixture
def full() -> Profile:
    return load(FULL)


def planned(what: Profile, out: Path, **change: str) -> Pipeline:
    about = msgspec.structs.replace(subject(ROOT, what), **change)
    return Pipeline(what, about, Store(out))


def changed(before: Pipeline, after: Pipeline) -> set[str]:
    assert [*before.keys] == [*after.keys]
    return {name for name, key in before.keys.items() if after.keys[name] != key}


ALL = {"apply", "verify", "numeric", "rebuild", "chain", "gsm8k", "traces"}
SERVED = {"gsm8k", "traces"}


def benches(plan: Pipeline) -> set[str]:
    return {name for name in plan.stages if name.startswith("bench")}


# --- keys -------------------------------------------------------------------------


def test_keys_ignore_the_place_of_the_run_directory(
    full: Profile, tmp_path: Path
) -> None:
    here, there = (planned(full, tmp_path / name) for name in ("a", "b c"))
    assert changed(here, there) == set()


def test_keys_ignore_the_place_of_the_repository(
    repository: Copy, tmp_path: Path
) -> None:
    """Runs whole programs, because each program knows only its own root."""
    moved = another(repository, tmp_path / "moved")
    keys = [dry(copy, FULL, tmp_path / "run") for copy in (repository, moved)]
    assert {**keys[0]} == {**keys[1]}
    assert "apply" in keys[0]


def dry(copy: Copy, name: str, out: Path) -> dict[str, str]:
    """Every stage's key, from a dry run of the whole program."""
    ended = copy.gate(name, out, "--dry-run")
    assert ended.code == 0, ended.all_output
    return {r["target"]: Path(r["tree"]).name for r in ended.report["results"]}


@pytest.mark.parametrize("what", ["series", "code"])
def test_series_and_code_change_every_key(
    what: str, full: Profile, tmp_path: Path
) -> None:
    before = planned(full, tmp_path)
    after = planned(full, tmp_path, **{what: "another"})
    assert changed(before, after) == {*before.stages}


@pytest.mark.parametrize(
    "path",
    [
        "overlay.lock",
        "patches/sglang/0001-fp8-consumer.patch",
        "overlay/sglang/python/sglang/srt/layers/quantization/bpreshuffle_scale.py",
        "scripts/xscale/census/judge.py",
        "ci/gatekit/run/runner.py",
        "ci/container/Dockerfile",
    ],
)
def test_one_byte_changes_the_subject(
    path: str, repository: Copy, tmp_path: Path, full: Profile
) -> None:
    copy = another(repository, tmp_path / "copy")
    before = subject(copy.root, full)
    place = copy.root / path
    assert place.is_file()
    with place.open("a") as file:
        file.write("\n")
    after = subject(copy.root, full)
    assert (before.series, before.code) != (after.series, after.code)


def test_report_code_changes_no_key(
    repository: Copy, tmp_path: Path, full: Profile
) -> None:
    copy = another(repository, tmp_path / "copy")
    before = subject(copy.root, full)
    (copy.root / "ci" / "gatekit" / "report" / "page.py").write_text("")
    assert subject(copy.root, full) == before


def replaced(what: Profile, section: str, **change: Any) -> Profile:
    part = msgspec.structs.replace(getattr(what, section), **change)
    return msgspec.structs.replace(what, **{section: part})


def test_section_changes_its_stage_and_the_stages_after_it(
    full: Profile, tmp_path: Path
) -> None:
    before = planned(full, tmp_path)
    every = benches(before)

    def effect(section: str, **change: Any) -> set[str]:
        return changed(before, planned(replaced(full, section, **change), tmp_path))

    assert effect("numeric", jobs=9) == {"numeric", *SERVED, *every}
    assert effect("chain", rounds=9) == {"chain"}
    assert effect("gsm8k", questions=9) == {"gsm8k"}
    assert effect("gsm8k", margin=1.0) == {"gsm8k"}
    assert effect("traces", layers=9) == {"traces"}
    assert effect("bench", margin=1.0) == {"bench"}
    assert effect("bench", rounds=9) == every
    assert effect("server", environment={"A": "1"}) == {*SERVED, *every}
    # Results of a stand-in do not count for the real thing; its name does not matter.
    assert effect("server", stands_in="another") == {*SERVED, *every, "bench"}
    named, other = (
        planned(replaced(full, "server", stands_in=name), tmp_path) for name in "ab"
    )
    assert changed(named, other) == set()
    assert effect("model", path="/another") == {*SERVED, *every}
    # Kernels also run in the image.
    inside = {"rebuild", "numeric", "chain", *SERVED, *every}
    assert effect("container", image="another:1") == inside


def test_image_name_depends_on_all_its_contents(full: Profile, tmp_path: Path) -> None:
    """Otherwise a run could serve an image that another profile built."""

    def tags(what: Profile, **change: str) -> set[str]:
        steps = planned(what, tmp_path, **change).stages["rebuild"].steps
        return {step.command[step.command.index("--tag") + 1] for step in steps}

    ways = [
        tags(full),
        tags(full, series="another"),
        tags(full, code="another"),
        tags(replaced(full, "container", image="another:1")),
        tags(replaced(full, "container", aiter="carried")),
    ]
    assert [len(one) for one in ways] == [2] * 5
    assert len(set().union(*ways)) == 10
    assert tags(full) == tags(replaced(full, "gsm8k", questions=9))


def test_another_point_keeps_the_other_keys(full: Profile, tmp_path: Path) -> None:
    assert full.bench
    before = planned(full, tmp_path)
    more = (*full.bench.points, (8, 8, 1))
    after = planned(replaced(full, "bench", points=more), tmp_path)
    same = {n for n in before.keys if before.keys[n] == after.keys[n]}
    assert same == {*before.keys} - {"bench"}


def test_another_model_with_the_same_path(full: Profile, tmp_path: Path) -> None:
    before = planned(full, tmp_path)
    other = planned(replaced(full, "model", sha256="0" * 64), tmp_path)
    assert changed(before, other) == {*SERVED, *benches(before)}


def test_questions_are_keyed_by_content(tmp_path: Path) -> None:
    cpu = load("cpu")

    def with_questions(name: str, text: str) -> Pipeline:
        path = tmp_path / name / "questions.jsonl"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        return planned(replaced(cpu, "gsm8k", files=(str(path),)), tmp_path)

    assert changed(with_questions("a", "1"), with_questions("b", "1")) == set()
    assert changed(with_questions("a", "1"), with_questions("a", "2")) == {"gsm8k"}


# --- order and needs --------------------------------------------------------------


@pytest.mark.parametrize("name", SHIPPED)
def test_needs_come_first(name: str, tmp_path: Path) -> None:
    plan = planned(load(name), tmp_path)
    seen: list[str] = []
    for stage in plan.stages.values():
        assert {*stage.needs} <= {*seen}
        seen.append(stage.name)
    assert {*seen} >= {*ALL, "bench"}


def test_stage_includes_its_needs(full: Profile, tmp_path: Path) -> None:
    plan = planned(full, tmp_path)
    first = next(iter(plan.stages))
    assert Runner(plan, [first]).wanted == {"apply"}
    chain = {"apply", "verify", "rebuild", "chain"}
    assert Runner(plan, ["chain"]).wanted == chain
    assert Runner(plan, ["bench"]).wanted == {*plan.stages} - {"chain", *SERVED}


# --- the whole plan, as printed ---------------------------------------------------


@cache
def results(name: str) -> list[dict[str, Any]]:
    """The results of a dry run of the whole program."""
    out = Path("/no such folder/with spaces")
    ended = Copy(ROOT).gate(name, out, "--dry-run")
    assert ended.code == 0 and ended.report["dry_run"], ended.all_output
    assert not out.parent.exists()
    found: list[dict[str, Any]] = ended.report["results"]
    return found


def commands(name: str) -> list[list[str]]:
    """Every command of ours that a dry run prints, as a shell would split it."""
    found = []
    for one in results(name):
        for line in one.get("commands", ()):
            words = shlex.split(line, comments=True)
            # In a container the verb has its full path.
            names = [word.removeprefix(f"{ROOT}/") for word in words]
            verbs = [n for n, name in enumerate(names) if VERB.fullmatch(name)]
            if verbs:
                found.append([names[verbs[0]], *words[verbs[0] + 1 :]])
    return found


@pytest.mark.parametrize("name", SHIPPED)
def test_verbs_accept_their_commands(name: str) -> None:
    seen = set()
    for verb, *words in commands(name):
        parser = ArgumentParser(verb, allow_abbrev=False)
        runpy.run_path(str(ROOT / verb))["options"](parser)
        parser.add_argument("--json", action="store_true")
        # Exits with the error if the verb would not accept the command.
        parsed = parser.parse_args(words)
        assert parsed.json
        seen.add(verb)
    assert {"scripts/fetch.py", "scripts/apply.py", "scripts/verify.py"} <= seen


@pytest.mark.parametrize("name", SHIPPED)
def test_no_placeholder_is_left(name: str) -> None:
    for one in results(name):
        for line in one.get("commands", ()):
            assert not re.search(r"(?<!\$)\{[a-z_ ]+\}", line), line


def test_full_plan_is_complete() -> None:
    found = {one["target"]: one for one in results(FULL)}
    assert {one["outcome"] for one in found.values()} == {"would run"}
    points = [name.partition(":")[2] for name in found if name.startswith("bench:")]
    assert len(points) == 10
    assert [*found][-1] == "bench"
    by_verb: dict[str, list[list[str]]] = {}
    for verb, *words in commands(FULL):
        by_verb.setdefault(verb, []).append(words)
    arms = [words[words.index("--arm") + 1] for words in by_verb["ci/rebuild.py"]]
    assert arms == ["baseline", "patched"]
    asked = by_verb["ci/gsm8k.py"]
    runs = [words for words in asked if words[0] == "run"]
    order = [words[words.index("--arm") + 1] for words in runs]
    assert order == ["baseline", "patched", "patched", "baseline"]
    assert len({words[words.index("--out") + 1] for words in runs}) == 4
    for words in runs:
        series = words[words.index("--series") + 1]
        assert (series == "none") == (words[words.index("--arm") + 1] == "baseline")
        assert words[words.index("--first") + 1] == "1200"
    assert asked[-1][0] == "compare"
    assert {w for w in asked[-1] if "run-" in w} == {
        words[words.index("--out") + 1] for words in runs
    }
    assert [words[0] for words in by_verb["ci/bench.py"]] == ["run"] * 10 + ["compare"]
    *ran, compared = by_verb["ci/bench.py"]
    assert [words[words.index("--points") + 1] for words in ran] == points
    assert {words[words.index("--out") + 1] for words in ran} < {*compared}
    assert {*points} < {*compared}
    copies = [
        words[words.index("--expect-copies") + 1]
        for words in by_verb["ci/trace_check.py"]
    ]
    assert copies == ["4", "1"]


def test_arm_records_the_same_origin_in_every_run() -> None:
    """The record must not depend on the port, the stage or the folder: otherwise two
    runs of one arm would have two origins and could not be compared."""
    recorded: dict[str, set[str]] = {}
    for verb, *words in commands(FULL):
        if verb == "ci/gsm8k.py" and words[0] == "run":
            arm = words[words.index("--arm") + 1]
            recorded.setdefault(arm, set()).add(
                words[words.index("--server-command") + 1]
            )
        if verb == "ci/bench.py" and words[0] == "run":
            for arm in ("baseline", "patched"):
                recorded[arm].add(words[words.index(f"--{arm}-command") + 1])
    assert {arm: len(lines) for arm, lines in recorded.items()} == {
        "baseline": 1,
        "patched": 1,
    }


def test_servers_differ_in_the_arm_alone() -> None:
    lines = [
        shlex.split(line.partition(" >>")[0])
        for line in next(r for r in results(FULL) if r["target"] == "gsm8k")["commands"]
        if "launch_server" in line and line.endswith("server=$!")
    ]
    assert len(lines) == 4
    as_one = {
        tuple(re.sub("baseline|patched", "ARM", word) for word in line)
        for line in lines
    }
    assert len(as_one) == 1


@pytest.mark.slow("the gate's own plan is run")
def test_printed_plan_runs(repository: Copy, questions: Path, tmp_path: Path) -> None:
    """The output of a dry run is a script; a later gate run uses its results."""
    pytest.importorskip("sgl_eval", reason="pip install --group gate")
    for program in ("bash", "curl"):
        if not shutil.which(program):
            pytest.skip(f"no {program}")
    asked, out = tmp_path / "asked", tmp_path / "with space"
    words = ("--port", "{port}", "--arm", "{arm}", "--questions", questions)
    server = served(SCRIPTED, *words, "--asked", asked, more=f"port = {free_port()}")
    mine = profile(tmp_path, REBUILD, server, gsm8k(questions, 4))
    gate = [word for word in repository.command("--profile", mine, "--out", out)
            if word != "--json"]  # fmt: skip
    script = subprocess.run(
        [*gate, "--dry-run"], capture_output=True, text=True, check=True
    ).stdout
    done = subprocess.run(
        ["bash"], input=script, cwd=tmp_path, capture_output=True, text=True,
        check=False, timeout=PATIENCE_S,
    )  # fmt: skip
    reports = [
        json.loads(text)
        for text in re.findall(r"^\{$.*?^\}$", done.stdout, re.MULTILINE | re.DOTALL)
    ]
    codes = [report["exit_code"] for report in reports]
    verbs = [report["verb"] for report in reports]
    assert verbs == ["fetch", "apply", "lock", "verify", "rebuild", "rebuild",
                     "gsm8k", "gsm8k", "gsm8k"], done.stderr  # fmt: skip
    # Four questions are too few to decide.
    assert codes == [0] * 8 + [4]
    assert len(asked.read_text().splitlines()) == 8
    kept = answers(out)
    ended = repository.gate(mine, out)
    assert ended.states["gsm8k"] == "inconclusive", ended.all_output
    assert answers(out) == kept
    assert len(asked.read_text().splitlines()) == 8
    plans = [one for one in ended.document["stages"] if one["commands"]]
    printed = script.splitlines()
    for one in plans:
        for line in one["commands"]:
            assert line in printed


@pytest.mark.parametrize(
    ("server", "deadline_s", "code"),
    [
        ("exit 3", PATIENCE_S, 1),
        ("exec sleep 60", 1, 124),
        ("exec python3 -m http.server --bind 127.0.0.1 $1", PATIENCE_S, 0),
    ],
)
def test_printed_plan_waits_for_a_healthy_server(
    server: str, deadline_s: int, code: int, tmp_path: Path
) -> None:
    """If the server ends or does not answer in time, the step does not run: waiting for
    ever would hold the GPUs, and another program may have the port."""
    for program in ("bash", "curl", "timeout", "python3"):
        if not shutil.which(program):
            pytest.skip(f"no {program}")
    port = free_port()
    words = ("sh", "-c", f"echo here; {server}", "-", str(port))
    serve = Serve(words, health="/", deadline_s=deadline_s)
    step = Step("ask", ("echo", "asked"), serve=serve, remove=(("echo", "removed"),))
    start, wait, own, *end = step.lines({"folder": str(tmp_path), "port": str(port)})
    script = [start, wait, own, "echo $?", *end]
    done = subprocess.run(
        ["bash"], input="\n".join(script), cwd=tmp_path, capture_output=True, text=True,
        check=False, timeout=PATIENCE_S,
    )  # fmt: skip
    assert done.stdout.split() == (["asked", "0"] if code == 0 else [str(code)])
    assert "here" in (tmp_path / "ask.server.log").read_text()
    assert not running(tmp_path)


def test_full_plan_removes_every_container() -> None:
    """A leftover server would keep its GPUs from the next one."""
    for one in results(FULL):
        started = re.findall(
            r"--name\W+(gate-\w+-[0-9a-f]{12})\b", " ".join(one["commands"])
        )
        gone = {
            line.split()[3]
            for line in one["commands"]
            if line.split()[:3] == ["docker", "rm", "--force"]
        }
        assert gone == set(started), one["target"]
        assert bool(gone) == (one["target"].startswith(("gsm8k", "traces", "bench:")))


def test_stage_without_a_section_has_a_reason(tmp_path: Path) -> None:
    plan = planned(load("cpu"), tmp_path)
    why = {s.name: s.why_not for s in plan.stages.values() if s.why_not}
    assert set(why) == {"traces", "bench"} and all(why.values())
