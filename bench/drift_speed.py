#!/usr/bin/env python3
"""Time the whole matrix, and ``git am -3`` of the series on each release.

``drift.py`` runs on every recorded release with the packages downloaded, as a whole
process: cold (empty cache; includes imports and its two processes) and warm.
``git am -3`` has less work. Its clone is made beforehand and contains, for each
release, only the folders that the series touches, on top of the pin's commit (so that
the three-way merge has its blobs). The time includes the checkout, the mailbox, and the
abort after a conflict. It only shows whether the whole series applies, not whether it
keeps its meaning, and it stops at the first conflict.
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
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "scripts"))

from git_am import am  # noqa: E402

from overlaykit.core import git  # noqa: E402
from overlaykit.export.formats import mailbox  # noqa: E402
from overlaykit.series.carried import Carried, load_overlay  # noqa: E402
from overlaykit.sources.releases import known, release_tree  # noqa: E402
from overlaykit.trees.tree import Tree, WheelTree  # noqa: E402

EVIDENCE = ROOT / "docs" / "evidence" / "drift-speed"
COMMAND = "make bench BENCH=--write"
CACHE = ROOT / "build" / "cache" / "drift"
SIZES = (2, 4, 8)
COLD, WARM, AM = "drift.py, first run", "drift.py, again", "git am -3"
_WHO = git.identity("bench", "bench@localhost", "@1700000000 +0000")


def drift(times: list[float]) -> None:
    """Run the verb on all recorded releases."""
    started = time.perf_counter()
    command = [sys.executable, str(ROOT / "scripts" / "drift.py"), "--recorded"]
    subprocess.run(command, check=True, capture_output=True)
    times.append(time.perf_counter() - started)


def peak_memory(versions: Sequence[str]) -> int:
    """Peak memory in KiB of the largest process that analyzes these releases."""
    shutil.rmtree(CACHE, ignore_errors=True)
    work = (
        "import sys; sys.path.insert(0, 'scripts'); "
        "from upstream.analysis import all_facts; "
        "from upstream.sources import release_source; "
        "from overlaykit.series.carried import load_overlay; "
        "from overlaykit.cli import ROOT; "
        "it = load_overlay(ROOT)['sglang']; "
        "all_facts(ROOT, it, [release_source(ROOT, it, v) for v in sys.argv[1:]], "
        "lambda *_: None)"
    )
    # In a separate process, whose only child is the one measured.
    probe = (
        "import resource, subprocess, sys; "
        "subprocess.run(sys.argv[1:], check=True); "
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    done = subprocess.run(
        [sys.executable, "-c", probe, sys.executable, "-c", work, *versions],
        check=True, capture_output=True, cwd=ROOT,
    )  # fmt: skip
    return int(done.stdout)


def make_clone(
    folder: Path, carried: Carried, base: Tree, trees: Sequence[Tree]
) -> None:
    """Commit the touched folders of the pin, and on top of it those of each release."""
    git.run(folder, "init", "-q")
    folders = {path.rpartition("/")[0] for path in carried.series.paths}
    for number, tree in enumerate([base, *trees]):
        if number:
            git.run(folder, "checkout", "-q", "--detach", "pin")
            git.run(folder, "rm", "-q", "-r", "python")
        for path in tree.paths():
            if path.rpartition("/")[0] in folders:
                place = folder / path
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_bytes(tree.read(path) or b"")
        git.run(folder, "add", "-A", "-f")
        git.run(folder, "commit", "-q", "--allow-empty", "-m", "release", env=_WHO)
        git.run(folder, "tag", f"release-{number}" if number else "pin")


def report(
    times: dict[str, list[float]],
    memory: dict[int, int],
    releases: int,
    landed: int,
    rounds: int,
) -> str:
    """The page of docs/evidence."""
    medians = {name: statistics.median(values) for name, values in times.items()}
    lines = [
        "# How long the matrix takes",
        "",
        f"Written by `{COMMAND}`: {releases} releases, {rounds} rounds; the commands "
        "take turns in each round. Times are in seconds.",
        "",
        f"| | median | minimum | `{AM}` / this |",
        "|---|---:|---:|---:|",
    ]
    for name, values in times.items():
        ratio = medians[AM] / medians[name]
        lines.append(
            f"| {name} | {medians[name]:.2f} | {min(values):.2f} | {ratio:.2f} |"
        )
    lines += [
        "",
        f"`{AM}` applies the whole series on {landed} of the {releases} releases and "
        "stops at the first conflict on the others. Its time excludes cloning; its "
        "trees contain only the folders that the series touches, and it has the pin's "
        "blobs. The time of `drift.py` is that of the whole process. On every release "
        "it tries each hunk, checks where it lands, and reads the whole package for "
        "producers and consumers, twice if hunks land.",
        "",
        "| the newest releases | peak memory of the largest process, MiB |",
        "|---:|---:|",
        *(f"| {size} | {peak / 1024:.0f} |" for size, peak in memory.items()),
        "",
        f"Measured on {platform.machine()}, {os.cpu_count()} cores, Python "
        f"{platform.python_version()}, {git.text(ROOT, '--version')}.",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--write", action="store_true", help=f"write {EVIDENCE}.*")
    arguments = parser.parse_args()
    carried = load_overlay(ROOT)["sglang"]
    versions = [
        release.version for release in known(ROOT, carried.target.package_dist.name)
    ]
    trees: list[WheelTree] = [release_tree(ROOT, carried.target, v) for v in versions]
    base = trees[versions.index(carried.target.package_dist.version)]
    times: dict[str, list[float]] = {COLD: [], WARM: [], AM: []}
    ram = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=ram if ram.is_dir() else None) as scratch:
        clone, mail = Path(scratch) / "clone", Path(scratch) / "series.mbox"
        clone.mkdir()
        mail.write_bytes(mailbox(carried))
        make_clone(clone, carried, base, trees)
        for number in range(1, arguments.rounds + 1):
            shutil.rmtree(CACHE, ignore_errors=True)
            drift(times[COLD])
            drift(times[WARM])
            started = time.perf_counter()
            refs = (f"release-{n}" for n in range(1, len(versions) + 1))
            landed = am(clone, mail, refs, _WHO)
            times[AM].append(time.perf_counter() - started)
            print(f"round {number}/{arguments.rounds}", file=sys.stderr, flush=True)
    # The newest releases are the largest, so every size includes them.
    memory = {n: peak_memory(versions[-n:]) for n in (*SIZES, len(versions))}
    page = report(times, memory, len(versions), landed, arguments.rounds)
    print(page)
    if arguments.write:
        EVIDENCE.with_suffix(".md").write_text(page, encoding="utf-8")
        data = {
            "command": COMMAND,
            "releases": versions,
            "seconds": times,
            "memory_kib": memory,
        }
        EVIDENCE.with_suffix(".json").write_text(json.dumps(data, indent=1) + "\n")


if __name__ == "__main__":
    main()
