"""A server that answers by a script: GSM8K's own gold answers, and what it is options.

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
    parser.add_argument("--folder", help="lets a test find the process")
    parser.add_argument("--asked", type=Path)
    parser.add_argument(
        "--wrong", type=int, default=0, help="wrong answers in the patched arm"
    )
    parser.add_argument(
        "--die-after", type=int, default=0, help="die once; --died marks it"
    )
    parser.add_argument("--died", type=Path)
    parser.add_argument("--status", type=int, default=FORWARD)
    parser.add_argument("--stall-after", type=int, default=0, help="while --stalling")
    parser.add_argument("--stalling", type=Path)
    options = parser.parse_args()
    gold = expected(options.questions)
    wrong = frozenset(list(gold)[: options.wrong if options.arm == "patched" else 0])
    mortal = options.die_after and not options.died.exists()
    lock = threading.Lock()
    right = knowing(gold, wrong)

    def reply(body: dict[str, Any], question: str) -> dict[str, Any] | None:
        if options.asked:
            with lock, options.asked.open("a") as file:
                file.write(f"{options.arm} {question[:60]!r}\n")
        return right(body, question)

    def status(number: int, _: str) -> int:
        if mortal and number > options.die_after:
            options.died.touch()
            print("dying as scripted", file=sys.stderr, flush=True)
            os._exit(9)
        if (
            options.stalling
            and options.stalling.exists()
            and number > options.stall_after
        ):
            return STALL
        return int(options.status)

    with serving(reply, status, options.port) as (url, _):
        print(f"{options.arm} at {url}", flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    main()
