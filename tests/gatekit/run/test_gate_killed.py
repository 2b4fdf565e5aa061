"""The gate is killed with ``kill -9`` in every stage of the CPU profile and resumes.

The profile is the shipped one with fewer and shorter answers. Trees, kernels,
installations, model and server are real.
"""

from __future__ import annotations

import json
import re
import signal
import subprocess
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from conftest import ROOT
from support.gate_runs import (
    Copy,
    Ended,
    answers,
    kill_9,
    results,
    unique,
)
from support.gsm8k_servers import smollm
from support.patience import wait_until
from support.processes import family, running

pytestmark = pytest.mark.slow("the gate is killed in every stage")

STAGES = ("apply", "verify", "numeric", "rebuild", "chain", "gsm8k")
FIRST_STEP = {"apply": "fetch", "verify": "lock", "numeric": "numeric",
              "chain": "chain"}  # fmt: skip
QUESTIONS = 4


@pytest.fixture(scope="module")
def profile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("sgl_eval", reason="pip install --group gate")
    pytest.importorskip("xllamacpp", reason="pip install --group gate-test")
    pytest.importorskip("triton", reason="pip install --group kernels")
    smollm()
    text = (ROOT / "ci" / "profiles" / "cpu.toml").read_text(encoding="utf-8")
    for was, now in (("questions = 180", f"questions = {QUESTIONS}"),
                     ("max_tokens = 640", "max_tokens = 24")):  # fmt: skip
        assert text.count(was) == 1
        text = text.replace(was, now)
    path = tmp_path_factory.mktemp("profile") / "small-cpu.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_killed_in_every_stage(
    repository: Copy,
    installed: Path,
    profile: Path,
    questions: Path,
    tmp_path: Path,
) -> None:
    out = tmp_path / "run"
    words: tuple[object, ...] = ("--questions", questions)
    done: dict[str, tuple[int, bytes]] = {}
    kept: dict[str, list[str]] = {}
    for stage in STAGES:
        resumed = ("--resume",) if done else ()
        process = repository.start(profile, out, *words, *resumed)
        try:
            wait_until(partial(is_running, stage, out, process))
        finally:
            kill_9(process, out)
        now = results(out)
        assert {Path(name).parts[0] for name in now} == {*STAGES[: STAGES.index(stage)]}
        assert {name: now[name] for name in done} == done
        done, kept = now, answers(out)
    assert kept["run-1-baseline"]
    last = repository.gate(profile, out, *words, "--resume")
    now = results(out)
    assert {name: now[name] for name in done} == done
    check_like_uninterrupted(last, out, installed)
    check_nothing_lost(kept, out)
    again = repository.gate(profile, out, *words, "--resume")
    assert results(out) == now
    assert again.states == last.states
    assert not running(out)


def is_running(stage: str, out: Path, process: subprocess.Popen[str]) -> bool:
    """Whether the gate is running this stage. If so the gate is stopped, so that it
    cannot continue before it is killed."""
    assert process.poll() is None
    if stage == "gsm8k":
        # The server answers; other questions are still open.
        begun = bool(answers(out).get("run-1-baseline"))
    elif stage == "rebuild":
        # An environment takes seconds to complete.
        begun = any(out.glob("rebuild/*/baseline/rebuild.json"))
    else:
        logs = out.glob(f"{stage}/*/{FIRST_STEP[stage]}.log")
        # The long stages print their progress.
        begun = any(log.stat().st_size or stage in ("apply", "verify") for log in logs)
    if not begun:
        return False
    process.send_signal(signal.SIGSTOP)
    # At least a keeper and its command are running.
    if len(family(process.pid)) >= 2:
        return True
    process.send_signal(signal.SIGCONT)
    return False


def check_like_uninterrupted(last: Ended, out: Path, installed: Path) -> None:
    """The result is the same as that of an uninterrupted run."""
    assert last.code == 4, last.all_output
    states = dict.fromkeys(STAGES[:-1], "pass")
    states |= {"gsm8k": "inconclusive", "traces": "not run", "bench": "not run"}
    assert last.states == states
    document = last.document
    assert document["verdict"] == "inconclusive"
    stages = {one["name"]: one for one in document["stages"]}
    for name in ("numeric", "chain", "gsm8k"):
        assert stages[name]["stands_in"]
    for kind in ("json", "md", "html"):
        text = (out / f"report.{kind}").read_text(encoding="utf-8")
        assert "inconclusive" in text.lower()
    unbroken = json.loads((installed / "report.json").read_text())["stages"]
    for one in unbroken:
        if one["name"] in ("apply", "verify", "rebuild"):
            assert one["key"] == stages[one["name"]]["key"]
        if one["name"] in ("verify", "rebuild"):
            assert comparable(one["evidence"], installed) == comparable(
                stages[one["name"]]["evidence"], out
            )
    (numeric,) = (
        r for r in stages["numeric"]["evidence"]["numeric"]["results"] if "cases" in r
    )
    assert numeric["right"] == numeric["cases"] > 100
    (chain,) = stages["chain"]["evidence"]["chain"]["results"]
    assert chain["claims"] and all(claim["holds"] for claim in chain["claims"])
    (compared,) = stages["gsm8k"]["evidence"]["compare"]["results"]
    assert compared["compared"]["verdict"] == "inconclusive"


def comparable(evidence: Any, out: Path) -> Any:
    """Without paths and times, and without whether a killed run had completed the arm:
    it is complete now in both cases, and was checked."""
    text = json.dumps(evidence).replace(str(out), "")
    text = text.replace('"as it was made"', '"made"')
    return json.loads(re.sub(r'"seconds": [0-9.e-]+', '"seconds": 0', text))


def check_nothing_lost(kept: dict[str, list[str]], out: Path) -> None:
    """No answer is lost, and no question is repeated."""
    final = answers(out)
    assert len(final) == 2  # the profile asks each arm once
    for run, rows in final.items():
        assert len(rows) == QUESTIONS
        assert unique(json.loads(row)["id"] for row in rows)
        assert rows[: len(kept.get(run, []))] == kept.get(run, [])
    (record,) = (
        json.loads(line)
        for path in out.glob("gsm8k/*/run-1-baseline/records.jsonl")
        for line in path.read_text().splitlines()
    )
    assert record["resumed"] == len(kept["run-1-baseline"])
