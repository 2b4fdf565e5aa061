#!/usr/bin/env python3
"""Time ``drift.py --range`` on upstream's real history, and ``git am -3`` beside it.

``drift.py`` runs as a whole process: first with nothing kept, then again. ``git am -3``
applies the series on the same commits. Its clone shares the objects of the given one
and checks out only the folders that the series touches, so it has less to do: it stops
at the first conflict, and does not look at what the result means. The commands take
turns in each round. Seconds of processor time count all processes of a command, those
of other programs on the machine do not; the time on the clock depends on both.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeVar

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "scripts"))

from git_am import am  # noqa: E402

from overlaykit.core import git  # noqa: E402
from overlaykit.export.formats import mailbox  # noqa: E402
from overlaykit.series.carried import load_overlay  # noqa: E402

T = TypeVar("T")

EVIDENCE = ROOT / "docs" / "evidence" / "history-speed"
KEPT = [ROOT / "build" / "cache" / name for name in ("drift", "lives", "census")]
FIRST, AGAIN, AM = "drift.py, first run", "drift.py, again", "git am -3"
_WHO = git.identity("bench", "bench@localhost", "@1700000000 +0000")


@dataclass
class Times:
    """Seconds of one command, round by round."""

    clock: list[float] = field(default_factory=list)
    processor: list[float] = field(default_factory=list)

    def measure(self, work: Callable[[], T]) -> T:
        before, started = _processor(), time.perf_counter()
        found = work()
        self.clock.append(time.perf_counter() - started)
        self.processor.append(_processor() - before)
        return found


def _processor() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def drift(clone: Path, commits: str) -> str:
    """Run the verb on the range; returns its report."""
    command = [sys.executable, str(ROOT / "scripts" / "drift.py"), "--json"]
    command += ["--clone", str(clone), "--range", commits]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def make_clone(folder: Path, clone: Path, folders: Sequence[str]) -> None:
    """A clone that shares the other's objects, with these folders checked out."""
    git.run(folder.parent, "clone", "-q", "-n", "-s", str(clone), str(folder))
    git.run(folder, "sparse-checkout", "set", "--cone", *folders)


def report(
    times: dict[str, Times], versions: int, landed: int, rounds: int, command: str
) -> str:
    """The page of docs/evidence."""
    beside = statistics.median(times[AM].clock)
    lines = [
        "# How long drift takes on upstream's history",
        "",
        f"Written by `{command}`: {versions} versions, {rounds} rounds; the commands "
        "take turns in each round. Times are in seconds; those of the processor count "
        "all processes of the command.",
        "",
        f"| | median | minimum | `{AM}` / this | processor, median | minimum |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for name, one in times.items():
        clock, used = statistics.median(one.clock), statistics.median(one.processor)
        lines.append(
            f"| {name} | {clock:.2f} | {min(one.clock):.2f} | {beside / clock:.2f} | "
            f"{used:.2f} | {min(one.processor):.2f} |"
        )
    cores, load = len(os.sched_getaffinity(0)), os.getloadavg()[0]
    lines += [
        "",
        f"`{AM}` applies the whole series on {landed} of the {versions} versions and "
        "stops at the first conflict on the others. Its time excludes cloning; its "
        "work tree has only the folders that the series touches. `drift.py` tries each "
        "hunk on every version, checks where it lands, reads the whole package for "
        "producers and consumers, twice if hunks land, and runs the tree's own code to "
        "see which sites are live. The first run has nothing kept.",
        "",
        f"Measured on {platform.machine()}, {cores} cores, Python "
        f"{platform.python_version()}, {git.text(ROOT, '--version')}; the load average "
        f"was {load:.1f} at the end, so {_said(load, cores)}.",
    ]
    return "\n".join(lines) + "\n"


def _said(load: float, cores: int) -> str:
    if load > cores + 1:
        return "other programs took part of the machine: compare the processor's times"
    return "nothing else ran"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clone", type=Path, required=True, help="a clone of SGLang")
    parser.add_argument("--range", required=True, metavar="A..B", help="as for drift")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--write", action="store_true", help=f"write {EVIDENCE}.*")
    arguments = parser.parse_args()
    carried = load_overlay(ROOT)["sglang"]
    clone = arguments.clone.resolve()
    times = {name: Times() for name in (FIRST, AGAIN, AM)}
    found: list[str] = []
    landed = 0
    with tempfile.TemporaryDirectory() as scratch:
        folder, mail = Path(scratch) / "clone", Path(scratch) / "series.mbox"
        mail.write_bytes(mailbox(carried))
        make_clone(
            folder, clone, sorted({p.rpartition("/")[0] for p in carried.series.paths})
        )

        for number in range(1, arguments.rounds + 1):
            for kept in KEPT:
                shutil.rmtree(kept, ignore_errors=True)
            run = partial(drift, clone, arguments.range)
            first, again = (times[name].measure(run) for name in (FIRST, AGAIN))
            if first != again:
                raise SystemExit("the second run gives another report")
            results = json.loads(first)["results"]
            found = [
                git.text(folder, "rev-parse", f"{result['tree']}^{{commit}}")
                for result in results
            ]
            landed = times[AM].measure(partial(am, folder, mail, found, _WHO))
            print(f"round {number}/{arguments.rounds}", file=sys.stderr, flush=True)
    command = (
        f"bench/history_speed.py --clone PATH --range {arguments.range} "
        f"--rounds {arguments.rounds} --write"
    )
    page = report(times, len(found), landed, arguments.rounds, command)
    print(page)
    if arguments.write:
        EVIDENCE.with_suffix(".md").write_text(page, encoding="utf-8")
        data = {
            "command": command,
            "versions": len(found),
            "clock_s": {name: one.clock for name, one in times.items()},
            "processor_s": {name: one.processor for name, one in times.items()},
        }
        EVIDENCE.with_suffix(".json").write_text(json.dumps(data, indent=1) + "\n")


if __name__ == "__main__":
    main()
