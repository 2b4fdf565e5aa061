#!/usr/bin/env python3
"""Time ``ci/gsm8k.py run`` and plain sgl-eval against a server that answers at once.

All 1,319 questions of the test set, 64 at a time. The stub server runs in a separate
process and answers correctly. Both commands are timed as whole processes and take
turns, so that other load on the machine affects both. Both use sgl-eval's requests and
grading.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from support.gsm8k_servers import expected, knowing, serving  # noqa: E402

EVIDENCE = ROOT / "docs" / "evidence" / "gsm8k-overhead"
COMMAND = "bench/gsm8k_overhead.py --write"
PLAIN, OURS = "sgl-eval", "ci/gsm8k.py run"
ALLOWED = 1.10


def serve(questions: Path, ready: Connection) -> None:
    """Run the stub server until its process ends."""
    with serving(knowing(expected(questions))) as (url, _):
        ready.send(url)
        ready.recv()


def commands(questions: Path, url: str, rows: Path, out: Path) -> dict[str, list[str]]:
    return {
        PLAIN: [
            *(sys.executable, "-m", "sgl_eval.cli", "run", "gsm8k"),
            *("--base-url", url, "--from-dataset", str(rows), "--out-dir", str(out)),
            *("--num-threads", "64", "--max-tokens", "64", "--seed", "0"),
        ],
        OURS: [
            *(sys.executable, str(ROOT / "ci" / "gsm8k.py"), "run"),
            *("--arm", "baseline", "--url", url, "--out", str(out)),
            *("--questions", str(questions), "--threads", "64", "--max-tokens", "64"),
        ],
    }


def measure(questions: Path, rounds: int) -> dict[str, list[float]]:
    times: dict[str, list[float]] = {PLAIN: [], OURS: []}
    ready, there = multiprocessing.Pipe()
    stub = multiprocessing.Process(target=serve, args=(questions, there), daemon=True)
    stub.start()
    url = ready.recv()
    with tempfile.TemporaryDirectory() as name:
        rows = Path(name) / "rows.jsonl"
        lines = (
            json.dumps({"problem": question, "expected_answer": answer}) + "\n"
            for question, answer in expected(questions).items()
        )
        rows.write_text("".join(lines), encoding="utf-8")
        for number in range(rounds):
            for who in (PLAIN, OURS) if number % 2 == 0 else (OURS, PLAIN):
                out = Path(name) / f"{number}-{who.partition('/')[0]}"
                command = commands(questions, url, rows, out)[who]
                started = time.perf_counter()
                subprocess.run(command, check=True, capture_output=True)
                times[who].append(time.perf_counter() - started)
                print(f"{who}: {times[who][-1]:.2f} s", file=sys.stderr)
    stub.terminate()
    return times


def table(times: dict[str, list[float]]) -> str:
    rows = ["| | median, s | minimum, s |", "| --- | --- | --- |"]
    for who, found in times.items():
        median, least = statistics.median(found), min(found)
        rows.append(f"| {who} | {median:.2f} | {least:.2f} |")
    ratios = ratio(times)
    rows.append(f"| ratio | {ratios['median']:.3f} | {ratios['least']:.3f} |")
    return "\n".join(rows)


def ratio(times: dict[str, list[float]]) -> dict[str, float]:
    return {
        "median": statistics.median(times[OURS]) / statistics.median(times[PLAIN]),
        "least": min(times[OURS]) / min(times[PLAIN]),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--write", action="store_true", help=f"write {EVIDENCE}.*")
    options = parser.parse_args(arguments)
    data = Path(os.environ.get("OVERLAY_TEST_DATA", ROOT.parent / "shared" / "data"))
    load = os.getloadavg()[0]
    times = measure(data / "gsm8k" / "test.jsonl", options.rounds)
    print(table(times))
    about = {
        "command": COMMAND,
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "load_before": round(load, 2),
        "rounds": options.rounds,
        "seconds": times,
        "ratio": ratio(times),
    }
    if options.write:
        text = (
            "# The cost of the layer over sgl-eval\n\n"
            f"Made by `{COMMAND}` ({about['cores']} cores, Python {about['python']}, "
            f"load {about['load_before']} before, {options.rounds} rounds in turn).\n"
            "1,319 questions, 64 at a time, against a stub server that answers at\n"
            "once. Times are of whole processes, with imports and grading.\n\n"
        )
        EVIDENCE.with_suffix(".md").write_text(text + table(times) + "\n", "utf-8")
        EVIDENCE.with_suffix(".json").write_text(json.dumps(about, indent=1) + "\n")
    return 0 if ratio(times)["median"] <= ALLOWED else 1


if __name__ == "__main__":
    sys.exit(main())
