"""Failing servers, with plain sgl-eval and with this layer.

Each gap is first shown in sgl-eval's own program, so that a test fails when a release
closes it.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import msgspec
import pytest

from conftest import run_verb
from support.gate_runs import lines
from support.gsm8k_servers import (
    FORWARD,
    HANG_UP,
    STALL,
    completion,
    expected,
    knowing,
    serving,
)
from support.patience import PATIENCE_S, wait_until

from .conftest import Verb, command

pytestmark = pytest.mark.slow("servers that stall, die and come back are waited for")


def _plain(sgl_eval: Verb, url: str, few: Path, out: Path, *more: str) -> Path:
    """Run sgl-eval's own program; its exit code is part of each test."""
    rows = few.with_suffix(".ns.jsonl")
    rows.write_text(
        "".join(
            json.dumps({"problem": question, "expected_answer": answer}) + "\n"
            for question, answer in expected(few).items()
        ),
        encoding="utf-8",
    )
    done = sgl_eval("run", "gsm8k", "--base-url", url, "--from-dataset", rows,
                    "--out-dir", out, "--num-threads", 8, *more)  # fmt: skip
    assert done.returncode == 0, done.stderr
    return max(out.iterdir(), key=lambda path: path.stat().st_mtime_ns)


def _ours(gsm8k: Verb, url: str, few: Path, out: Path, *more: object) -> dict[str, Any]:
    done = gsm8k("run", "--json", "--arm", "baseline", "--url", url, "--out", out,
                 "--questions", few, "--threads", 8, "--tries", 1, *more)  # fmt: skip
    assert done.stdout, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    assert report["exit_code"] == done.returncode
    return report


def test_a_failed_request_is_not_a_wrong_answer(
    gsm8k: Verb, sgl_eval: Verb, few: Path, tmp_path: Path
) -> None:
    answers = expected(few)
    bad = set(list(answers)[3:7])

    def behaviour(_: int, question: str) -> int:
        return 400 if question in bad else FORWARD

    with serving(knowing(answers), behaviour) as (url, _):
        folder = _plain(sgl_eval, url, few, tmp_path / "plain")
        rows = [json.loads(line) for line in (folder / "output-rs0.jsonl").open()]
        wrong = [row for row in rows if not row["symbolic_correct"]]
        assert {row["finish_reason"] for row in wrong} == {"error"}  # the gap
        assert len(wrong) == 4
        report = _ours(gsm8k, url, few, tmp_path / "ours")
    assert report["exit_code"] == 4
    kept = (tmp_path / "ours" / "answers.jsonl").read_text().splitlines()
    assert len(kept) == 36
    assert not (tmp_path / "ours" / "records.jsonl").exists()
    # Neither run is scored: the plain one is rejected for the same failures.
    done = gsm8k(
        "compare", "--baseline", folder, "--patched", tmp_path / "ours", "--json"
    )
    compared = json.loads(done.stdout)["results"][0]["compared"]
    assert (done.returncode, compared["verdict"]) == (4, "invalid")
    broken = {check["name"] for check in compared["controls"] if not check["holds"]}
    assert {"every question is answered", "no request failed"} <= broken


def test_a_run_resumes(gsm8k: Verb, sgl_eval: Verb, few: Path, tmp_path: Path) -> None:
    answers = expected(few)
    bad = set(list(answers)[3:7])
    healthy: list[bool] = []

    def behaviour(_: int, question: str) -> int:
        return 500 if question in bad and not healthy else FORWARD

    with serving(knowing(answers), behaviour) as (url, traffic):
        assert _ours(gsm8k, url, few, tmp_path / "ours")["exit_code"] == 4
        healthy.append(True)
        # A writer killed while writing leaves a torn line.
        with (tmp_path / "ours" / "answers.jsonl").open("ab") as file:
            file.write(b'{"id":"gsm8k-9')
        assert _ours(gsm8k, url, few, tmp_path / "ours")["exit_code"] == 0
        before = sum(traffic.asked.values())
        assert _ours(gsm8k, url, few, tmp_path / "ours")["exit_code"] == 0
        assert sum(traffic.asked.values()) == before
        assert set(traffic.answered.values()) == {1}
        assert len(traffic.answered) == 40
        # The gap: run again, plain sgl-eval asks everything again.
        _plain(sgl_eval, url, few, tmp_path / "plain")
        _plain(sgl_eval, url, few, tmp_path / "plain-again")
        assert set(traffic.answered.values()) == {3}
    lines = (tmp_path / "ours" / "answers.jsonl").read_bytes().splitlines()
    assert len({msgspec.json.decode(line)["id"] for line in lines}) == len(lines) == 40
    assert len((tmp_path / "ours" / "records.jsonl").read_bytes().splitlines()) == 1


def test_every_request_has_a_token_limit(
    gsm8k: Verb, sgl_eval: Verb, few: Path, tmp_path: Path
) -> None:
    with serving(knowing(expected(few))) as (url, traffic):
        _plain(sgl_eval, url, few, tmp_path / "plain")
        assert all("max_tokens" not in body for body in traffic.bodies)  # the gap
        traffic.bodies.clear()
        _ours(gsm8k, url, few, tmp_path / "ours", "--max-tokens", 77)
        assert {body["max_tokens"] for body in traffic.bodies} == {77}
        assert {body["temperature"] for body in traffic.bodies} == {0}
        assert {body["seed"] for body in traffic.bodies} == {0}


def test_answers_are_paired_by_id_in_any_order(
    gsm8k: Verb, sgl_eval: Verb, few: Path, tmp_path: Path
) -> None:
    answers = expected(few)
    slow = set(list(answers)[:5])

    def late(_: int, question: str) -> int:
        if question in slow:
            wait_until(lambda: len(traffic.answered) >= 3)
        return FORWARD

    wrong = frozenset(list(answers)[10:13])
    limits = ("--max-tokens", "64", "--seed", "0")
    with serving(knowing(answers), late) as (url, traffic):
        plain = _plain(sgl_eval, url, few, tmp_path / "plain", *limits)
    order = [json.loads(line)["id"] for line in (plain / "output-rs0.jsonl").open()]
    assert order != sorted(order, key=lambda name: int(name.rpartition("-")[2]))  # gap
    with serving(knowing(answers, wrong)) as (url, _):
        other = _plain(sgl_eval, url, few, tmp_path / "other", *limits)
    done = gsm8k("compare", "--baseline", plain, "--patched", other, "--json")
    score = json.loads(done.stdout)["results"][0]["compared"]["score"]
    assert (score["lost"], score["gained"]) == (3, 0)
    # Plain runs record neither their arm nor whether they are copies.
    assert "is taken on trust" in json.loads(done.stdout)["message"]
    shutil.copytree(plain, tmp_path / "copy")
    done = gsm8k("compare", "--baseline", plain, "--patched", tmp_path / "copy")
    assert done.returncode == 4 and "no run is listed twice" in done.stderr


def test_an_interrupt_ends_a_run_that_waits(few: Path, tmp_path: Path) -> None:
    """The gap: sgl-eval closes the client, which leaves a blocked read blocked."""
    pytest.importorskip("sgl_eval", reason="pip install --group gate")
    answers = expected(few)

    def behaviour(number: int, _: str) -> int:
        return FORWARD if number <= 10 else STALL

    out = tmp_path / "ours"
    kept = out / "answers.jsonl"
    with serving(knowing(answers), behaviour) as (url, traffic):
        arguments = command("run", "--arm", "baseline", "--url", url, "--out", out,
                            "--questions", few, "--threads", 4)  # fmt: skip
        verb = subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True)
        wait_until(lambda: len(traffic.bodies) >= 14 and len(lines(kept)) == 10)
        other = subprocess.run(arguments, capture_output=True, text=True, check=False)
        assert other.returncode == 5
        assert f"{out} is in use" in other.stderr and f"pid {verb.pid}" in other.stderr
        os.kill(verb.pid, signal.SIGINT)
        _, said = verb.communicate(timeout=PATIENCE_S)
        # The server still stalls, so no answer ended the verb.
    assert verb.returncode == 130
    assert "30 of 40 are unanswered" in said
    assert len(lines(kept)) == 10


def test_sgl_evals_own_abort_does_not_wake_a_stalled_request() -> None:
    pytest.importorskip("sgl_eval", reason="pip install --group gate")
    program = (
        "import sys, threading\n"
        "from sgl_eval.sampler import ChatCompletionSampler\n"
        "sampler = ChatCompletionSampler(sys.argv[1], 'a-model')\n"
        "ask = lambda: sampler([{'role': 'user', 'content': 'x'}])\n"
        "thread = threading.Thread(target=ask, daemon=True)\n"
        "thread.start(); sys.stdin.readline(); sampler.abort(); thread.join(4)\n"
        "print(thread.is_alive())\n"
    )
    with (
        serving(lambda *_: completion(""), lambda *_: STALL) as (url, traffic),
        subprocess.Popen(
            [sys.executable, "-c", program, url],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        ) as verb,
    ):  # fmt: skip
        # Abort only after the request is sent.
        wait_until(lambda: bool(traffic.bodies))
        said, _ = verb.communicate("abort\n", timeout=PATIENCE_S)
    assert said == "True\n"


def test_a_server_that_stalls_or_hangs_up_ends_the_session(
    gsm8k: Verb, few: Path, tmp_path: Path
) -> None:
    def behaviour(number: int, _: str) -> int:
        return FORWARD if number <= 5 else (STALL if number % 2 else HANG_UP)

    with serving(knowing(expected(few)), behaviour) as (url, traffic):
        report = _ours(gsm8k, url, few, tmp_path / "ours", "--timeout", 10)
        assert sum(traffic.asked.values()) < 40
    assert report["exit_code"] == 4
    assert "too many requests in a row failed" in str(report["findings"])
    assert len((tmp_path / "ours" / "answers.jsonl").read_bytes().splitlines()) == 5


@pytest.mark.parametrize("ending", ["abort", "content_filter"])
def test_an_answer_cut_off_by_the_server_is_not_an_answer(
    gsm8k: Verb, few: Path, tmp_path: Path, ending: str
) -> None:
    """SGLang ends an aborted request with a 200 and the text so far."""
    with serving(lambda *_: completion("It is \\boxed{18", ending)) as (url, _):
        report = _ours(gsm8k, url, few, tmp_path / "ours")
    assert report["exit_code"] == 4
    assert ending in str(report["findings"])
    assert (tmp_path / "ours" / "answers.jsonl").read_bytes() == b""


_HALF = "It is \\boxed{18}, \ud800"
_MALFORMED: dict[str, Callable[[dict[str, Any]], object]] = {
    "a list for a text": lambda m: m["choices"][0]["message"].update(content=[{}]),
    "half a character": lambda m: m["choices"][0]["message"].update(content=_HALF),
    "malformed reasoning": lambda m: m["choices"][0]["message"].update(
        reasoning_content={}
    ),
    "text for a count": lambda m: m["usage"].update(completion_tokens="many"),
    "no choice": lambda m: m.update(choices=[]),
}


@pytest.mark.parametrize("what", _MALFORMED)
def test_a_malformed_reply_is_a_failed_request(
    gsm8k: Verb, few: Path, tmp_path: Path, what: str
) -> None:
    """The other answers are kept and not requested again."""
    answers = expected(few)
    bad = list(answers)[5]
    healthy: list[bool] = []

    def reply(body: dict[str, Any], question: str) -> dict[str, Any] | None:
        message = knowing(answers)(body, question)
        if message and question == bad and not healthy:
            _MALFORMED[what](message)
        return message

    with serving(reply) as (url, traffic):
        report = _ours(gsm8k, url, few, tmp_path / "ours")
        assert report["exit_code"] == 4 and report["findings"], report
        assert "1 of 40 are unanswered" in str(report["message"])
        healthy.append(True)
        assert _ours(gsm8k, url, few, tmp_path / "ours")["exit_code"] == 0
    assert traffic.asked.pop(bad) == 2
    assert set(traffic.asked.values()) == {1}


def test_a_reply_from_another_model_invalidates(
    gsm8k: Verb, few: Path, tmp_path: Path
) -> None:
    """A router may choose it: the request named the same model on both arms."""
    answers = expected(few)

    def rerouted(body: dict[str, Any], question: str) -> dict[str, Any] | None:
        message = knowing(answers)(body, question)
        return message and {**message, "model": "a-smaller-model"}

    for arm, reply in (("baseline", knowing(answers)), ("patched", rerouted)):
        with serving(reply) as (url, _):
            done = gsm8k("run", "--arm", arm, "--url", url, "--out", tmp_path / arm,
                         "--questions", few, "--model", "a-model")  # fmt: skip
            assert done.returncode == 0, done.stderr
    done = gsm8k("compare", "--json", "--baseline", tmp_path / "baseline",
                 "--patched", tmp_path / "patched")  # fmt: skip
    (finding,) = json.loads(done.stdout)["findings"]
    assert done.returncode == 4
    assert finding["what"] == "does not hold: all answers name one model"
    assert "'a-smaller-model' in" in finding["found"] and finding["next_step"]


_PAGES: dict[str, tuple[str, bytes]] = {
    "a page": ("text/html", b"<html>Hello</html>"),
    "no JSON": ("application/json", b"{"),
    "no text": ("application/json", b'{"data": [{"id": "\xff"}]}'),
    "a list": ("application/json", b"[]"),
    "no models": ("application/json", b'{"data": []}'),
    "a model without a name": ("application/json", b'{"data": [{}]}'),
    "a name alone": ("application/json", b'{"data": ["a-model"]}'),
}


@pytest.mark.parametrize("what", _PAGES)
def test_another_kind_of_server_responds(
    gsm8k: Verb, few: Path, tmp_path: Path, what: str
) -> None:
    kind, body = _PAGES[what]

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_address[1]}"
        report = _ours(gsm8k, url, few, tmp_path / "ours")
        server.shutdown()
    assert report["exit_code"] == 5, report
    (finding,) = report["findings"]
    assert "lists no model" in finding["what"] and "/v1" in finding["next_step"]
    assert not (tmp_path / "ours").exists()


@pytest.mark.parametrize("url", ["a:1", "http://", "http://[::1", "http://a:x/v1"])
def test_an_invalid_url(gsm8k: Verb, few: Path, tmp_path: Path, url: str) -> None:
    for named in ((), ("--model", "a-model")):
        assert _ours(gsm8k, url, few, tmp_path / "ours", *named)["exit_code"] == 2
    assert not (tmp_path / "ours").exists()


def test_a_disk_that_fills_up(gsm8k: Verb, few: Path, tmp_path: Path) -> None:
    """The run stops, keeps its answers, and resumes with the same command."""
    pytest.importorskip("sgl_eval", reason="pip install --group gate")
    out = tmp_path / "ours"
    answers = out / "answers.jsonl"

    def full() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))

    def late(_: int, __: str) -> int:
        time.sleep(0.1)
        return FORWARD

    with serving(knowing(expected(few)), late) as (url, traffic):
        arguments = command("run", "--arm", "baseline", "--url", url, "--out", out,
                            "--questions", few, "--threads", 2)  # fmt: skip
        done = subprocess.run(
            arguments, capture_output=True, text=True, check=False, preexec_fn=full
        )
        assert done.returncode == 5, done.stderr
        assert f"cannot write {answers}" in done.stderr
        assert "Traceback" not in done.stderr
        asked = sum(traffic.asked.values())
        kept = answers.read_bytes().rpartition(b"\n")[0]
        assert 0 < kept.count(b"\n") < asked < 40
        assert _ours(gsm8k, url, few, out)["exit_code"] == 0
        assert sum(traffic.asked.values()) - asked == 40 - len(kept.splitlines())
    assert answers.read_bytes().startswith(kept)
    assert len(answers.read_bytes().splitlines()) == 40


def test_no_server_at_all(gsm8k: Verb, few: Path, tmp_path: Path) -> None:
    report = _ours(gsm8k, "http://127.0.0.1:9/v1", few, tmp_path / "ours")
    assert report["exit_code"] == 5
    assert not (tmp_path / "ours").exists()


def test_a_folder_of_another_run_is_refused(
    gsm8k: Verb, few: Path, tmp_path: Path
) -> None:
    out = tmp_path / "ours"
    with serving(knowing(expected(few))) as (url, traffic):
        assert _ours(gsm8k, url, few, out)["exit_code"] == 0
        asked = len(traffic.bodies)
        for other in (("--max-tokens", 5), ("--first", 7), ("--tree", "4b825dc")):
            report = _ours(gsm8k, url, few, out, *other)
            assert report["exit_code"] == 2, other
        assert len(traffic.bodies) == asked


def test_a_finished_run_is_not_resumed(gsm8k: Verb, few: Path, tmp_path: Path) -> None:
    """An answer was truncated; asking it again would mix two runs."""
    out = tmp_path / "ours"
    with serving(knowing(expected(few))) as (url, traffic):
        assert _ours(gsm8k, url, few, out)["exit_code"] == 0
        answers = out / "answers.jsonl"
        answers.write_bytes(answers.read_bytes()[:-9])
        report = _ours(gsm8k, url, few, out)
        assert report["exit_code"] == 2
        assert "was changed after the run finished" in report["message"]
        assert len(traffic.bodies) == 40


def test_runs_record_their_tree_and_both_arms_cannot_share_it(
    gsm8k: Verb, few: Path, tmp_path: Path, slim: Callable[..., Path]
) -> None:
    tree = slim()
    options = (
        "--questions",
        few,
        "--source",
        tree,
        "--server-command",
        "serve --key K",
    )
    with serving(knowing(expected(few))) as (url, _):

        def run(arm: str, name: str, *more: object) -> int:
            return gsm8k("run", "--arm", arm, "--url", url, "--out", tmp_path / name,
                         *options, *more).returncode  # fmt: skip

        assert run("baseline", "a", "--series", "none") == 2
        assert run("baseline", "a") == 0
        assert run("patched", "forgotten") == 0
        assert run_verb("apply", str(tree)).returncode == 0
        assert run("baseline", "a") == 2  # another series than the run began with
        assert run("patched", "b") == 0

    def compare(*patched: str) -> dict[str, Any]:
        done = gsm8k("compare", "--json", "--baseline", tmp_path / "a",
                     "--patched", *(tmp_path / name for name in patched))  # fmt: skip
        report: dict[str, Any] = json.loads(done.stdout)
        assert report["exit_code"] == done.returncode == 4
        return report

    compared = compare("b")["results"][0]["compared"]
    assert compared["verdict"] == "inconclusive"  # forty questions decide nothing
    before, after = (compared[arm]["origin"] for arm in ("baseline", "patched"))
    assert before["series"] == "none" and after["series"].startswith("sha256:")
    assert before["tree"] != after["tree"]
    assert before["command"] == after["command"] != ""
    assert "--key" not in json.dumps(compared)
    (finding,) = compare("forgotten")["findings"]
    assert finding["what"] == "does not hold: the arms differ in the series"
    assert "none in both arms" in finding["found"] and finding["next_step"]
