"""End to end: llama.cpp's server, a real model, real questions; a proxy that fails."""

from __future__ import annotations

import json
import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.gsm8k_servers import (
    FORWARD,
    HANG_UP,
    Llama,
    expected,
    forwarding,
    serving,
    smollm,
)
from support.patience import PATIENCE_S, wait_until

from . import qwen
from .conftest import Verb, command

pytestmark = pytest.mark.slow("a real model answers, on a CPU")

_SLOTS = 2
# Enough to see that two runs agree, and cheap to compute.
_LIMITS = ("--first", 8, "--max-tokens", 32, "--threads", _SLOTS)


@pytest.fixture(scope="module")
def llama() -> Iterator[Llama]:
    server = Llama(smollm(), _SLOTS)
    yield server
    server.kill()


def test_a_baseline_against_itself(
    gsm8k: Verb, llama: Llama, questions: Path, tmp_path: Path
) -> None:
    url = llama.start()
    for arm in ("baseline", "patched"):
        done = gsm8k("run", "--arm", arm, "--url", url, "--out", tmp_path / arm,
                     "--questions", questions, *_LIMITS)  # fmt: skip
        assert done.returncode == 0, done.stderr
    llama.kill()
    done = gsm8k("compare", "--baseline", tmp_path / "baseline",
                 "--patched", tmp_path / "patched", "--json")  # fmt: skip
    compared = json.loads(done.stdout)["results"][0]["compared"]
    assert done.returncode == 4, done.stderr  # eight questions decide nothing
    assert compared["verdict"] == "inconclusive"
    assert all(
        control["holds"]
        for control in compared["controls"]
        if control["name"] != "the baseline has something to lose"
    )
    assert compared["score"]["further"] > 100
    rows = [json.loads(line)
            for line in (tmp_path / "baseline" / "answers.jsonl").open()]  # fmt: skip
    assert all(row["prompt_tokens"] > 50 and row["generation"] for row in rows)


def test_a_server_that_fails_dies_and_restarts(
    gsm8k: Verb, llama: Llama, questions: Path, tmp_path: Path
) -> None:
    """400, 500 and hang-ups; killed in the middle; then restarted."""
    url = llama.start()
    out = tmp_path / "run"

    killed = threading.Event()

    def behaviour(number: int, _: str) -> int:
        if number > 6:  # Three of the first six are answered, and the others not yet.
            killed.wait(PATIENCE_S)
        return {2: 500, 3: 400, 5: HANG_UP}.get(number, FORWARD)

    with serving(forwarding(url), behaviour) as (proxy, traffic):
        arguments = ("run", "--arm", "baseline", "--url", proxy, "--out", out, "--json",
                     "--questions", questions, *_LIMITS, "--tries", 1)  # fmt: skip

        def kill_in_the_middle() -> None:
            wait_until(lambda: sum(traffic.answered.values()) >= 2)
            llama.kill()
            killed.set()

        killer = threading.Thread(target=kill_in_the_middle)
        killer.start()
        done = gsm8k(*arguments)
        killer.join()
        report = json.loads(done.stdout)
        assert done.returncode == 4, done.stderr
        kept = (out / "answers.jsonl").read_bytes().splitlines()
        assert 2 <= len(kept) == report["results"][0]["answered"] < 8
        assert llama.start() == url
        while done.returncode == 4:
            before = len(traffic.bodies)
            done = gsm8k(*arguments)
            assert len(traffic.bodies) > before
        assert done.returncode == 0, done.stderr
        # Nothing that was answered was asked again, and none of it was lost.
        assert set(traffic.answered.values()) == {1}
    llama.kill()
    lines = (out / "answers.jsonl").read_bytes().splitlines()
    assert lines[: len(kept)] == kept
    assert {json.loads(line)["id"] for line in lines} == {
        f"gsm8k-{n}" for n in range(8)
    }


def test_killed_and_resumed(
    gsm8k: Verb, llama: Llama, questions: Path, tmp_path: Path
) -> None:
    """kill -9 of the verb: all answers are kept."""
    url = llama.start()
    out = tmp_path / "run"
    with serving(forwarding(url)) as (proxy, traffic):
        arguments = ("run", "--arm", "baseline", "--url", proxy, "--out", out,
                     "--questions", questions, *_LIMITS)  # fmt: skip
        with subprocess.Popen(command(*arguments)) as verb:
            answers = out / "answers.jsonl"
            wait_until(
                lambda: answers.exists() and answers.read_bytes().count(b"\n") > 2
            )
            verb.kill()
        kept = answers.read_bytes()[: answers.read_bytes().rfind(b"\n") + 1]
        assert gsm8k(*arguments).returncode == 0
        ids = [json.loads(line)["id"] for line in kept.splitlines()]
    llama.kill()
    assert answers.read_bytes().startswith(kept)
    asked = expected(questions)
    for name in ids:
        question = list(asked)[int(name.rpartition("-")[2])]
        assert traffic.asked[question] == 1


def test_the_server_is_killed_without_a_proxy(
    llama: Llama, questions: Path, tmp_path: Path
) -> None:
    """kill -9 of the server, then the same command with a new one."""
    url = llama.start()
    answers = tmp_path / "run" / "answers.jsonl"
    arguments = command("run", "--arm", "baseline", "--url", url, "--out",
                        tmp_path / "run", "--questions", questions, *_LIMITS,
                        "--json")  # fmt: skip
    with subprocess.Popen(arguments, stdout=subprocess.PIPE) as verb:
        wait_until(lambda: answers.exists() and answers.read_bytes().count(b"\n") > 1)
        llama.kill()
        said, _ = verb.communicate(timeout=PATIENCE_S)
    report = json.loads(said)
    kept = answers.read_bytes()
    assert verb.returncode == 4
    assert 2 <= kept.count(b"\n") == report["results"][0]["answered"] < 8
    assert "APIConnectionError" in str(report["findings"])
    assert not (tmp_path / "run" / "records.jsonl").exists()
    assert subprocess.run(arguments, capture_output=True, check=False).returncode == 5
    assert answers.read_bytes() == kept
    assert llama.start() == url
    subprocess.run(arguments, capture_output=True, check=True)
    llama.kill()
    assert answers.read_bytes().startswith(kept)
    ids = [json.loads(line)["id"] for line in answers.read_bytes().splitlines()]
    assert sorted(ids) == [f"gsm8k-{n}" for n in range(8)]


def test_degraded_answers_fail(gsm8k: Verb, questions: Path, tmp_path: Path) -> None:
    """A model with some right answers, and a proxy that spoils a part of them."""
    place = os.environ.get("GSM8K_QWEN")
    if not place:
        pytest.skip("opt-in, most of an hour, see qwen.py: GSM8K_QWEN=FILE.gguf")
    itself, spoiled = qwen.measure(Path(place), questions, qwen.QUESTIONS, tmp_path)
    assert itself["results"][0]["compared"]["verdict"] in ("pass", "inconclusive")
    assert spoiled["exit_code"] == 1
    compared = spoiled["results"][0]["compared"]
    assert compared["verdict"] == "fail"
    assert compared["score"]["harm_p"] <= 0.05
    assert "the patch does no harm" in compared["reasons"][0]
