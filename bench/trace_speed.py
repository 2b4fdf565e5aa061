#!/usr/bin/env python3
"""Time ``trace_check`` on a large trace, and other ways to read it.

The trace repeats a real eager trace, each time with new ids and later times, in the
profiler's format. Each arm runs as a separate process, and the arms take turns in each
round. Its time starts after its imports and ends with its answer; its memory is the
peak of the process.
"""

from __future__ import annotations

import argparse
import gzip
import importlib
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / name) for name in ("ci", "scripts", "tests")]

EVIDENCE = ROOT / "docs" / "evidence" / "trace-speed"
COMMAND = "make bench-traces"
MODULE = "Qwen3Attention"
_TOOLS = ROOT / "build" / "venv-trace-tools" / "bin" / "python"
# Larger than the difference of any two ids, and of any two times, in the trace.
_IDS, _MICROSECONDS = 10_000_000, 2_000_000
_SHIFTED = ("correlation", "External id", "Python id", "Python parent id", "Ev Idx")


def generate(path: Path, times: int) -> tuple[int, int]:
    """Write the trace. Returns its number of events and bytes."""
    from support.profiler_traces import EAGER, as_profiler, load, profiler_text

    document = load(EAGER, whole=True)
    events = document.pop("traceEvents")
    empty = as_profiler({**document, "traceEvents": events[:1]})
    one = profiler_text(events[0]).encode()
    head, _, tail = empty.partition(one)
    size = len(head) + len(tail)
    with gzip.open(path, "wb", compresslevel=6) as file:
        file.write(head)
        for number in range(times):
            for at, event in enumerate(events):
                event["ts"] = round(event["ts"] + bool(number) * _MICROSECONDS, 3)
                shift = bool(number) * _IDS
                if "id" in event:
                    event["id"] += shift
                args = event.get("args", {})
                for name in _SHIFTED:
                    if isinstance(args.get(name), int):
                        args[name] += shift
                first = not (number or at)
                text = b"" if first else b"\n  },\n  {\n    "
                text += profiler_text(event).encode()
                size += len(text)
                file.write(text)
            print(f"generated {number + 1}/{times}", file=sys.stderr, flush=True)
        file.write(tail)
    return times * len(events), size


def _unpacked(path: Path) -> Path:
    return path.with_suffix("")


# --- arms: each returns the number of copies in the module's calls -------------------


def decompression(path: Path) -> int:
    """Decompress with Python's gzip."""
    with gzip.open(path) as file:
        return sum(map(len, iter(lambda: file.read(1 << 20), b""))) * 0


def inflation(path: Path) -> int:
    """Decompress as trace_check does."""
    from gatekit.traces.inflating import chunks

    return sum(map(len, chunks(path))) * 0


def _check(path: Path) -> int:
    from gatekit.traces.verdicts import Requirement, analyse

    analysed = analyse(path, Requirement(MODULE, 36, 2), [])
    assert all(control.holds for control in analysed.controls)
    return analysed.totals.copies


def fast(path: Path) -> int:
    return _check(path)


def unpacked(path: Path) -> int:
    return _check(_unpacked(path))


def typed(path: Path) -> int:
    from gatekit.traces import reading

    def refuse(*_: object) -> Any:
        raise reading._Unfamiliar

    reading._by_lines = refuse  # type: ignore[assignment]
    return _check(path)


def json_load(path: Path) -> int:
    """The same join on the document that the standard library reads."""
    from gatekit.traces import verdicts
    from gatekit.traces.events import Launch, Span, Trace, Work, split_module

    def read(path: Path) -> Trace:
        with gzip.open(path) as file:
            document = json.load(file)
        work, launches, spans = [], [], []
        for event in document["traceEvents"]:
            if event["ph"] != "X":
                continue
            start = round(event["ts"] * 1000)
            duration = round(event["dur"] * 1000)
            thread = event["pid"], event["tid"]
            args, category = event.get("args", {}), event["cat"]
            if category in ("kernel", "gpu_memcpy", "gpu_memset"):
                place = args["device"], args["stream"], args["correlation"]
                work.append(Work(event["name"], category, start, duration, *place))
            elif category == "cuda_runtime":
                if "Launch" in event["name"] or "Memcpy" in event["name"]:
                    names = event["name"], args.get("kernel", "")
                    end = start + duration
                    launch = Launch(*names, start, end, thread, args["correlation"])
                    launches.append(launch)
            elif category == "user_annotation" or event["name"].startswith("nn.Mod"):
                named = split_module(event["name"])
                noted = category == "user_annotation"
                spans.append(Span(*named, start, start + duration, thread, noted))
        return Trace(str(path), "json", 0, "", 0, 1, work, launches, spans)

    verdicts.read_trace = read  # type: ignore[attr-defined]
    return _check(path)


def hta(path: Path) -> int:
    """Parsing only: HTA does not assign kernels to modules."""
    from hta.trace_analysis import (  # type: ignore[import-not-found]
        TraceAnalysis,
    )

    analysis = TraceAnalysis(trace_files={0: str(path)}, trace_dir=str(path.parent))
    frame = analysis.t.get_trace(0)
    assert len(frame) > 1000, "not read"
    return -1


ARMS: dict[str, Callable[[Path], int]] = {
    "decompression alone, Python's gzip": decompression,
    "decompression alone, ISA-L": inflation,
    "trace_check, by lines": fast,
    "trace_check, by lines, the file unpacked": unpacked,
    "trace_check, whole document": typed,
    "json.load and the same join": json_load,
    "HolisticTraceAnalysis, parsing": hta,
}


def run_arm(name: str, path: Path) -> dict[str, float]:
    """Run one arm in a separate process."""
    python = str(_TOOLS) if name.startswith("Holistic") else sys.executable
    # Otherwise HTA rounds times to whole microseconds.
    env = os.environ | {"HTA_DISABLE_NS_ROUNDING": "1"}
    command = [python, __file__, "--arm", name, "--trace", str(path)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{name}: exit code {done.returncode}: {done.stderr[-500:]}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def _peak() -> float:
    """Peak megabytes of this process (the parent's rusage would include its own)."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.partition("VmHWM:")[2].split()[0]) / 1000


def measure(
    arms: list[str], path: Path, rounds: int
) -> dict[str, list[dict[str, float]]]:
    found: dict[str, list[dict[str, float]]] = {name: [] for name in arms}
    for number in range(rounds):
        for name in arms:
            found[name].append(run_arm(name, path))
            shown = found[name][-1]
            print(
                f"round {number + 1}/{rounds}: {name}: {shown['seconds']:.2f} s, "
                f"{shown['megabytes']:.0f} MB",
                file=sys.stderr,
                flush=True,
            )
    return found


def _median(runs: list[dict[str, float]], what: str) -> float:
    return statistics.median(run[what] for run in runs)


def report(data: dict[str, Any]) -> str:
    """The page of docs/evidence."""
    found, small = data["runs"], data["small_runs"]
    ours = "trace_check, by lines"
    base = _median(found[ours], "cpu")
    lines = [
        "# How long trace_check takes on a large trace",
        "",
        f"Written by `{COMMAND}`. The trace is the real eager one, repeated "
        f"{data['times']} times with new ids and times, in the "
        f"profiler's format: {data['events']:,} events, {data['bytes'] / 1e6:.0f} MB, "
        f"{data['compressed'] / 1e6:.0f} MB compressed. {data['rounds']} rounds; "
        "in each round every arm runs once, as a separate process.",
        "",
        "| arm | wall s, median (min) | CPU s, median (min) | peak MB | "
        "CPU, by lines = 1 |",
        "|---|---:|---:|---:|---:|",
    ]
    for name, runs in found.items():
        cells = [
            f"{_median(runs, what):.2f} ({min(run[what] for run in runs):.2f})"
            for what in ("seconds", "cpu")
        ]
        lines.append(
            f"| {name} | {cells[0]} | {cells[1]} | {_median(runs, 'megabytes'):.0f} | "
            f"{_median(runs, 'cpu') / base:.2f} |"
        )
    lines += [
        "",
        "| target | measured, CPU seconds | met |",
        "|---|---|---|",
        *(
            f"| {what} | {found_} | {'yes' if met else '**no**'} |"
            for what, found_, met in _targets(found)
        ),
        "",
        f"A trace of {data['small_times']} repetitions took "
        f"{_median(small, 'cpu'):.2f} "
        f"CPU seconds and {_median(small, 'megabytes'):.0f} MB by lines: "
        f"{data['times'] / data['small_times']:.0f} times the file takes "
        f"{base / _median(small, 'cpu'):.1f} times the time and "
        f"{_median(found[ours], 'megabytes') / _median(small, 'megabytes'):.2f} times "
        "the memory. Memory grows with the launches, kernels and modules.",
        "",
        "Every arm that parses also finds the module's kernels and copies and checks "
        "the controls, except HolisticTraceAnalysis: its time is for parsing only, "
        "with `HTA_DISABLE_NS_ROUNDING=1`.",
        "",
        "trace_check decompresses with ISA-L, which the gate's requirements install. "
        "Its other work takes "
        f"{base / _median(found['decompression alone, ISA-L'], 'cpu') - 1:.1f} times "
        "as long as that. Without the package it uses zlib, like Python's gzip.",
        "",
        "The trace is compressed, like the profiler's files. An uncompressed file has "
        "no checksum that covers unread parts, so all of its events are parsed.",
        "",
        f"Measured on {platform.machine()}, {os.cpu_count()} cores shared with other "
        f"work (load average {data['load'][0]:.1f} at the start, {data['load'][1]:.1f} "
        "at the end, so the table has CPU seconds too), Python "
        f"{platform.python_version()}.",
    ]
    return "\n".join(lines) + "\n"


def _targets(found: dict[str, list[dict[str, float]]]) -> list[tuple[str, str, bool]]:
    """The targets: what was measured, and whether medians and minima both meet it.

    Minima count too, because other load slows the arms that need much memory more.
    """
    ours = "trace_check, by lines"

    def ratios(one: str, other: str) -> tuple[float, float]:
        minima = [min(run["cpu"] for run in found[name]) for name in (one, other)]
        medians = [_median(found[name], "cpu") for name in (one, other)]
        return medians[0] / medians[1], minima[0] / minima[1]

    def text(pair: tuple[float, float]) -> str:
        return f"{pair[0]:.1f} by medians, {pair[1]:.1f} by minima"

    rows = []
    for name, least in (
        ("json.load and the same join", 10),
        ("HolisticTraceAnalysis, parsing", 20),
    ):
        what = f"{least} times faster than {name}"
        if name in found:
            pair = ratios(name, ours)
            rows.append((what, text(pair), min(pair) >= least))
        else:
            rows.append((what, "not run", False))
    memory = max(run["megabytes"] for run in found[ours])
    share = ratios(ours, "decompression alone, Python's gzip")
    name = "within 2.5 times decompression alone, by Python's gzip"
    rows.append((name, text(share), max(share) <= 2.5))
    rows.append(("less than 64 MB", f"{memory:.0f} MB", memory < 64))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=25)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--without-hta", action="store_true")
    parser.add_argument("--write", action="store_true", help=f"write {EVIDENCE}.*")
    parser.add_argument("--arm", choices=ARMS, help=argparse.SUPPRESS)
    parser.add_argument("--trace", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.arm:
        arm = ARMS[arguments.arm]
        # Import before the timing starts.
        importlib.import_module(
            "hta.trace_analysis" if arm is hta else "gatekit.traces.verdicts"
        )
        began, used = time.perf_counter(), time.process_time()
        copies = arm(arguments.trace)
        taken = {
            "seconds": time.perf_counter() - began,
            "cpu": time.process_time() - used,
            "copies": copies,
            "megabytes": _peak(),
        }
        print(json.dumps(taken))
        return
    arms = [n for n in ARMS if not (arguments.without_hta and n.startswith("Hol"))]
    load = [os.getloadavg()[0]]
    with tempfile.TemporaryDirectory() as folder:
        large, small = (Path(folder) / f"{n}.trace.json.gz" for n in ("large", "small"))
        few = max(arguments.times // 5, 1)
        generate(small, few)
        events, size = generate(large, arguments.times)
        with gzip.open(large) as packed, _unpacked(large).open("wb") as plain:
            shutil.copyfileobj(packed, plain)
        found = measure(arms, large, arguments.rounds)
        ours = "trace_check, by lines"
        small_runs = measure([ours], small, arguments.rounds)[ours]
        compressed = large.stat().st_size
    load.append(os.getloadavg()[0])
    answers = {run["copies"] for runs in found.values() for run in runs} - {0, -1}
    assert answers == {72 * arguments.times}, answers
    data = {
        "command": COMMAND,
        "times": arguments.times,
        "small_times": few,
        "rounds": arguments.rounds,
        "events": events,
        "bytes": size,
        "compressed": compressed,
        "load": load,
        "runs": found,
        "small_runs": small_runs,
    }
    page = report(data)
    print(page)
    if arguments.write:
        EVIDENCE.with_suffix(".md").write_text(page, encoding="utf-8")
        EVIDENCE.with_suffix(".json").write_text(json.dumps(data, indent=1) + "\n")


if __name__ == "__main__":
    main()
