#!/usr/bin/env python3
"""Measure how long the series takes to land: this engine, quilt, git am, git apply.

All tools run in turn, round by round, on the whole pinned SGLang tree in a RAM-backed
directory, and on a tree five times as large. Every tool lands the same change (new
files and five patches). Reverting it is not timed.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from argparse import Namespace
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "scripts"))

import apply as verb  # noqa: E402

from overlaykit.core import git  # noqa: E402
from overlaykit.export.formats import export_quilt, mailbox  # noqa: E402
from overlaykit.series.carried import Carried, load_overlay  # noqa: E402

EVIDENCE = ROOT / "docs" / "evidence" / "apply-speed"
COMMAND = "make bench BENCH=--write"


@dataclass(frozen=True)
class Tool:
    """A tool: how it lands the series, and how to revert that (not timed)."""

    name: str
    land: Callable[[Path], None]
    undo: Callable[[Path], None]


def tools(carried: Carried, scratch: Path) -> list[Tool]:
    """All tools to compare; quilt only if it is installed."""
    (scratch / "series.mbox").write_bytes(mailbox(carried))
    names = export_quilt(carried, scratch / "patches")
    patches = b"".join((scratch / "patches" / n).read_bytes() for n in names[:-1])
    (scratch / "all.patch").write_bytes(patches)

    def process(*command: str) -> Callable[[Path], None]:
        def call(tree: Path) -> None:
            subprocess.run(command, cwd=tree, check=True, stdout=subprocess.DEVNULL)

        return call

    def in_process(tree: Path) -> None:
        options = dict.fromkeys(("status", "commit", "dry_run", "unapply"), False)
        verb.apply(Namespace(paths=[tree], **options))

    reset = process("git", "reset", "-q", "--hard", "pin")
    clean = process("git", "clean", "-fdq", "--", "python", "test")

    def back(tree: Path) -> None:
        reset(tree)
        clean(tree)

    apply = (sys.executable, str(ROOT / "scripts" / "apply.py"))
    unapply = process(*apply, "--unapply", ".")
    whole = process(*apply, ".")
    git_am = process("git", "am", "-q", "-3", "../series.mbox")
    git_apply = process("git", "apply", "../all.patch")
    found = [
        Tool("apply.py, whole process", whole, unapply),
        Tool("apply.py, the engine's own part", in_process, unapply),
        Tool("git am -3", git_am, back),
        Tool("git apply", git_apply, back),
    ]
    if shutil.which("quilt"):
        push = process("quilt", "push", "-a", "-q")
        pop = process("quilt", "pop", "-a", "-q")
        found.insert(2, Tool("quilt push -a", push, pop))
    return found


def make_tree(scratch: Path, copies: int) -> Path:
    """The laid out release, with ``copies`` - 1 more copies committed."""
    tree = scratch / f"tree-{copies}x"
    shutil.copytree(ROOT / "build" / "sglang", tree, symlinks=True)
    git.run(tree, "reset", "-q", "--hard", "pin")
    git.run(tree, "clean", "-fdxq")
    for number in range(1, copies):
        shutil.copytree(tree / "python", tree / f"copy-{number}")
    roles = ("AUTHOR", "COMMITTER")
    who = {f"GIT_{r}_{k}": "bench" for r in roles for k in ("NAME", "EMAIL")}
    git.run(tree, "config", "user.name", "bench")
    git.run(tree, "config", "user.email", "bench@localhost")
    git.run(tree, "add", "-A", "-f")
    git.run(tree, "commit", "-q", "--allow-empty", "-m", f"{copies} times", env=who)
    git.run(tree, "tag", "-f", "pin")
    (tree / "patches").symlink_to(scratch / "patches")
    return tree


def measure(
    found: list[Tool], trees: dict[int, Path], rounds: int
) -> dict[str, dict[int, list[float]]]:
    """Milliseconds by tool and tree size, after one round to warm up."""
    times: dict[str, dict[int, list[float]]] = {
        c.name: {size: [] for size in trees} for c in found
    }
    for number in range(rounds + 1):
        for one in found:
            for size, tree in trees.items():
                started = time.perf_counter()
                one.land(tree)
                took = (time.perf_counter() - started) * 1000
                one.undo(tree)
                if number:
                    times[one.name][size].append(took)
        print(f"round {number}/{rounds}", file=sys.stderr, flush=True)
    return times


def report(
    times: dict[str, dict[int, list[float]]], files: dict[int, int], rounds: int
) -> str:
    """The page of docs/evidence."""
    lines = [
        "# How long the series takes to land",
        "",
        f"Written by `{COMMAND}`: {rounds} rounds after one to warm up, the tools in "
        "turn within each round, in a RAM-backed directory; milliseconds, median "
        "(minimum).",
        "",
        "| tool | "
        + " | ".join(f"{n:,} files" for n in files.values())
        + " | larger tree / smaller |",
        "|---|" + "---:|" * (len(files) + 1),
    ]
    for name, by_size in times.items():
        medians = [statistics.median(values) for values in by_size.values()]
        cells = [
            f"{median:.1f} ({min(values):.1f})"
            for median, values in zip(medians, by_size.values(), strict=True)
        ]
        lines.append(
            f"| {name} | {' | '.join(cells)} | {medians[-1] / medians[0]:.2f} |"
        )
    lines += [
        "",
        "`apply.py` includes recognising the target, checking every digest of the "
        "lock, the journal and the check of the landing. Its own part is what is "
        "left without starting Python and importing. `git apply` writes files and "
        "proves nothing; it is the floor.",
        "",
        f"Measured on {platform.machine()}, {os.cpu_count()} cores, Python "
        f"{platform.python_version()}, {git.text(ROOT, '--version')}.",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--write", action="store_true", help=f"write {EVIDENCE}.*")
    arguments = parser.parse_args()
    ram = Path("/dev/shm")
    if not ram.is_dir():
        print("no RAM-backed directory: using the disk", file=sys.stderr)
    carried = load_overlay(ROOT)["sglang"]
    with tempfile.TemporaryDirectory(dir=ram if ram.is_dir() else None) as folder:
        scratch = Path(folder)
        found = tools(carried, scratch)
        trees = {size: make_tree(scratch, size) for size in (1, 5)}
        files = {
            size: len(git.text(tree, "ls-files").splitlines())
            for size, tree in trees.items()
        }
        times = measure(found, trees, arguments.rounds)
    page = report(times, files, arguments.rounds)
    print(page)
    if arguments.write:
        EVIDENCE.with_suffix(".md").write_text(page, encoding="utf-8")
        data = {"command": COMMAND, "files": files, "milliseconds": times}
        EVIDENCE.with_suffix(".json").write_text(json.dumps(data, indent=1) + "\n")


if __name__ == "__main__":
    main()
