"""The small model's questions follow their rule, and the model answers some right."""

from __future__ import annotations

import json
import shutil
from itertools import islice
from pathlib import Path

import pytest
from stand_ins.sums import QUESTIONS, sums

from conftest import ROOT
from gatekit.gsm8k.questions import load
from gatekit.run.profile import load as load_profile
from overlaykit.core.errors import Exit
from support.gsm8k_servers import Llama, knowing, serving, smollm

from .conftest import Verb

pytestmark = pytest.mark.slow("a real model answers, on a CPU")

SUMS = ROOT / "ci" / "stand_ins" / "sums.jsonl"
PROMPT = SUMS.with_suffix(".yaml")
_ASKED = 16


def test_the_file_follows_the_rule(questions: Path) -> None:
    rows = questions.read_text(encoding="utf-8").splitlines()
    made = "".join(islice(sums(rows), QUESTIONS))
    assert made == SUMS.read_text(encoding="utf-8")


def test_their_answers_are_right(tmp_path: Path) -> None:
    found, _ = load([str(SUMS)], tmp_path, {})
    for one in found:
        text = one.problem.removeprefix("What is ").removesuffix("?")
        left, sign, right = text.split()
        known = {"+": int(left) + int(right), "-": int(left) - int(right),
                 "*": int(left) * int(right)}  # fmt: skip
        assert int(one.expected) == known[sign]
    assert len({one.problem for one in found}) == len(found) == QUESTIONS


def test_the_profile_uses_all_of_them() -> None:
    """And no others; a real profile uses GSM8K with its own prompt."""
    cpu = load_profile("cpu")
    assert cpu.gsm8k and cpu.server
    assert cpu.gsm8k.questions == QUESTIONS
    # One answer in 180 may wander before it ends: seven in eight were cut off at 128.
    assert cpu.gsm8k.max_tokens >= 4 * 138
    names = {name.replace("{root}", str(ROOT)) for name in cpu.gsm8k.files}
    assert names == {str(SUMS)}
    assert cpu.gsm8k.prompt.replace("{root}", str(ROOT)) == str(PROMPT)
    assert "sums" in cpu.server.stands_in
    real = load_profile("mi355x-glm51").gsm8k
    assert real and (real.files, real.prompt) == (("test",), "")


def test_the_model_has_something_to_lose(gsm8k: Verb, tmp_path: Path) -> None:
    """Several answers are right, and none is truncated or without a number."""
    server = Llama(smollm(), 2)
    out = tmp_path / "run"
    try:
        done = gsm8k(
            "run", "--arm", "baseline", "--url", server.start(), "--out", out,
            "--questions", SUMS, "--prompt", PROMPT, "--first", _ASKED,
            "--max-tokens", 640, "--threads", 2,
        )  # fmt: skip
    finally:
        server.kill()
    assert done.returncode == 0, done.stderr
    copy = shutil.copytree(out, tmp_path / "copy")
    done = gsm8k("compare", "--baseline", out, "--patched", copy, "--json")
    compared = json.loads(done.stdout)["results"][0]["compared"]
    [run] = compared["baseline"]["runs"]
    assert run["correct"] >= _ASKED // 4
    assert (run["truncated"], run["silent"], run["failed"]) == (0, 0, 0)
    broken = {check["name"] for check in compared["controls"] if not check["holds"]}
    assert "the baseline has something to lose" not in broken


def test_a_custom_prompt_is_sent_and_recorded(gsm8k: Verb, tmp_path: Path) -> None:
    answers = {f"{json.loads(line)['question']}\nSolution:":
               json.loads(line)["answer"].rpartition("#### ")[2]
               for line in SUMS.read_text().splitlines()}  # fmt: skip
    other = tmp_path / "other.yaml"
    other.write_text("user: '{problem}'\n")
    runs = {"a": PROMPT, "b": PROMPT, "c": other, "d": None}
    with serving(
        lambda body, question: knowing(answers | {
            question: answers.get(question.removeprefix("Problem: "), "1")
        })(body, question)
    ) as (url, traffic):  # fmt: skip
        for name, prompt in runs.items():
            given = () if prompt is None else ("--prompt", prompt)
            done = gsm8k("run", "--arm", "baseline", "--url", url, "--out",
                         tmp_path / name, "--questions", SUMS, "--first", 3,
                         *given)  # fmt: skip
            assert done.returncode == 0, done.stderr
    sent = [body["messages"][-1]["content"] for body in traffic.bodies]
    assert sum("The answer is \\boxed{24}." in text for text in sent) == 6
    prompts = [json.loads((tmp_path / n / "run.json").read_text())["settings"]["prompt"]
               for n in runs]  # fmt: skip
    assert prompts[0] == prompts[1] and len(set(prompts)) == 3
    assert prompts[3] == "sgl-eval's own"
    for other_run in ("c", "d"):
        done = gsm8k("compare", "--baseline", tmp_path / "a", "--patched",
                     tmp_path / other_run, "--json")  # fmt: skip
        said = json.loads(done.stdout)
        assert (done.returncode, said["results"][0]["outcome"]) == (4, "invalid")


@pytest.mark.parametrize(
    "text, code",
    [
        (b"user: what?\n", Exit.USAGE),
        (b"user: '{problem} {x}'\n", Exit.USAGE),
        (b"user: '{problem} {'\n", Exit.USAGE),
        (b"user: [1]\n", Exit.USAGE),
        (b"- {problem}\n", Exit.USAGE),
        (b"", Exit.USAGE),
        (b"\xff\xfe\x00", Exit.USAGE),
        (b"[" * 5000, Exit.USAGE),
        (b"user: !!python/object/apply:os.system ['true']\n", Exit.USAGE),
        (None, Exit.ENVIRONMENT),
    ],
)
def test_an_invalid_prompt(
    gsm8k: Verb, tmp_path: Path, text: bytes | None, code: Exit
) -> None:
    place = tmp_path / "p.yaml"
    if text is not None:
        place.write_bytes(text)
    with serving(knowing({})) as (url, traffic):
        done = gsm8k("run", "--json", "--arm", "baseline", "--url", url, "--out",
                     tmp_path / "out", "--questions", SUMS, "--prompt",
                     place)  # fmt: skip
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    [finding] = json.loads(done.stdout)["findings"]
    assert finding["path"] == str(place) and finding["next_step"]
    assert not traffic.bodies
