"""A server that answers by a script: GSM8K's own gold answers, and what it is told.

Started by the gate from a profile of the tests, as a real one would be, with an
OpenAI-compatible endpoint on loopback. ``--asked`` is a file that gets a line for every
question, with its arm.
"""

from __future__ import annotations

import os
import sys
import threading
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

_TESTS = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(_TESTS), str(_TESTS.parent / "scripts")]

from support.gsm8k_servers import FORWARD, STALL, expected, knowing, serving  # noqa: E402


def main() -> None:
    parser = ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--arm", required=True)
    parser.add_argument("--questions", type=Path, required=True)
    parser.add_argument("--folder", help="whose it is: a test finds it by that")
    parser.add_argument("--asked", type=Path)
    parser.add_argument("--wrong", type=int, default=0, help="when patched")
    parser.add_argument("--die-after", type=int, default=0, help="once, by --died")
    parser.add_argument("--died", type=Path)
    parser.add_argument("--status", type=int, default=FORWARD)
    parser.add_argument("--stall-after", type=int, default=0, help="while --stalling")
    parser.add_argument("--stalling", type=Path)
    told = parser.parse_args()
    gold = expected(told.questions)
    wrong = frozenset(list(gold)[: told.wrong if told.arm == "patched" else 0])
    mortal = told.die_after and not told.died.exists()
    lock = threading.Lock()
    right = knowing(gold, wrong)

    def reply(body: dict[str, Any], question: str) -> dict[str, Any] | None:
        if told.asked:
            with lock, told.asked.open("a") as file:
                file.write(f"{told.arm} {question[:60]!r}\n")
        return right(body, question)

    def fate(number: int, _: str) -> int:
        if mortal and number > told.die_after:
            told.died.touch()
            print("dying as told", file=sys.stderr, flush=True)
            os._exit(9)
        if told.stalling and told.stalling.exists() and number > told.stall_after:
            return STALL
        return int(told.status)

    with serving(reply, fate, told.port) as (url, _):
        print(f"{told.arm} at {url}", flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    main()
