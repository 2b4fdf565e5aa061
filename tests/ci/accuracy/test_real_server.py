"""End to end: llama.cpp's server, a real model, real questions; a proxy that fails."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from gsm8k_servers import (
    FORWARD,
    HANG_UP,
    Llama,
    expected,
    forwarding,
    serving,
    smollm,
    wait_until,
)

from .conftest import Verb, command

_SLOTS = 2
# Enough to see that two runs say the same, and little to compute.
_LIMITS = ("--first", 8, "--max-tokens", 32, "--threads", _SLOTS)
QWEN = "1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32"


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


def test_a_server_that_fails_and_dies_and_comes_back(
    gsm8k: Verb, llama: Llama, questions: Path, tmp_path: Path
) -> None:
    """400, 500 and hang-ups on the way; killed in the middle; then started again."""
    url = llama.start()
    out = tmp_path / "run"

    def fate(number: int, _: str) -> int:
        return {2: 500, 3: 400, 5: HANG_UP}.get(number, FORWARD)

    with serving(forwarding(url), fate) as (proxy, traffic):
        arguments = ("run", "--arm", "baseline", "--url", proxy, "--out", out, "--json",
                     "--questions", questions, *_LIMITS, "--tries", 1)  # fmt: skip

        def kill_in_the_middle() -> None:
            wait_until(lambda: sum(traffic.answered.values()) >= 2)
            llama.kill()

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
    """kill -9 of the verb itself: what was answered stays."""
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


def _qwen() -> Path:
    """The model's file, joined from the data packages' parts by hand beforehand."""
    place = os.environ.get("GSM8K_QWEN")
    if not place:
        pytest.skip("opt-in, an hour or more: GSM8K_QWEN=FILE.gguf")
    path = Path(place)
    with path.open("rb") as file:
        found = hashlib.sha256()
        while block := file.read(1 << 20):
            found.update(block)
    assert found.hexdigest() == QWEN
    return path


def test_degraded_answers_fail(gsm8k: Verb, questions: Path, tmp_path: Path) -> None:
    """A model that gets some right, and a proxy that spoils a part of its answers.

    GSM8K_QWEN_QUESTIONS says how many (default 200): at 15 % right, and a third of the
    right answers spoiled, about ten are lost and none gained.
    """
    model = _qwen()
    count = int(os.environ.get("GSM8K_QWEN_QUESTIONS", "200"))
    server = Llama(model, _SLOTS)
    limits = ("--questions", questions, "--first", count, "--threads", _SLOTS,
              "--max-tokens", 400, "--timeout", 3600, "--model", "qwen")  # fmt: skip
    real = forwarding(server.start())

    def spoil(body: dict[str, object], question: str) -> dict[str, object] | None:
        answer = real(body, question)
        if answer and hashlib.sha256(question.encode()).digest()[0] % 3 == 0:
            answer["choices"][0]["message"]["content"] = "I think \\boxed{-1}."
        return answer

    try:
        for arm, reply in (("baseline", real), ("patched", spoil)):
            with serving(reply) as (proxy, _):
                arguments = command("run", "--arm", arm, "--url", proxy,
                                    "--out", tmp_path / arm, *limits)  # fmt: skip
                subprocess.run(arguments, check=True)
    finally:
        server.kill()
    done = gsm8k("compare", "--baseline", tmp_path / "baseline",
                 "--patched", tmp_path / "patched")  # fmt: skip
    print(done.stdout, done.stderr)
    assert done.returncode == 1, done.stdout
