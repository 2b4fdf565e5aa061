#!/usr/bin/env python3
"""Compare ``trace_check`` with a plain ``json.load`` and join on public traces.

The join shares no code with ``ci/gatekit/traces``. It matches every kernel with the
launch that has its number, and every launch with the module call around it, in plain
loops. It examines one class of modules in each file: attention, if there is any.

Give repositories as NAME@COMMIT=FOLDER; FOLDER contains that commit's files.
"""

from __future__ import annotations

import argparse
import gzip
import json
import re
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from decimal import Decimal
from enum import Enum
from itertools import pairwise
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
_CHECK = ROOT / "ci" / "trace_check.py"
_GPU = ("kernel", "gpu_memcpy", "gpu_memset")
_RUNTIME = ("cuda_runtime", "cuda_driver", "hip_runtime")
_LAUNCH = re.compile(r"(cuda|hip|cu)\w*?(Launch(?!Host)|Mem(cpy|set))")
_ATTENTION = re.compile(r"attn|attention", re.IGNORECASE)
_MODULE = "nn.Module: "
_COPY = "direct_copy_kernel"
_GRAPH = "GraphLaunch"
Event = dict[str, Any]
# For controls that do not hold: characters of each, and how many to list.
_FOUND, _SHOWN = 70, 3
_WRITTEN = "--page docs/evidence/trace-public.md"
_PAGE = """\
# Public traces: trace_check and a plain join

Written by

```sh
{command}
```

Each FOLDER contains that commit of a public repository. The join is `json.load` and two
loops in that script; it shares no code with `ci/gatekit/traces`. There are {files}
files.

Each file is examined for one class of modules: attention if there is one, else the
class with the most launches, else (without any `nn.Module`) an annotated range. `x36`
means 36 layers. The counts are calls / kernels in these calls / `direct_copy` kernels
among them. `trace_check` gets the layers and copies that the join found, so its verdict
is about the file and not about a guess. For replays it gets the folder `capture_traces`
beside the file. 25 larger files of these two commits, one of them from an MI355X, were
not available and are not in the table.

| | files |
|---|---:|
{summary}

| file | examined | join | trace_check | verdict | reason; remarks of the join |
|---|---|---|---|---|---|
{table}
"""


class Agreement(Enum):
    """Whether the two readers agree."""

    EQUAL = "counts equal"
    INVALID = "invalid, with a reason"
    NOT_READ = "not read: not a trace, or not of a GPU"
    DIFFERS = "DIFFERS"


@dataclass(frozen=True)
class Counts:
    """One reader's counts for the module's calls."""

    calls: int
    kernels: int
    copies: int


@dataclass
class Plain:
    """The join's result for one file: the module that it examined, and the counts."""

    module: str
    layers: int
    counts: Counts
    remarks: list[str]


def load(path: Path) -> list[Event] | None:
    """The events, or None for JSON that is not a trace."""
    data = path.read_bytes()
    text = gzip.decompress(data) if data.startswith(b"\x1f\x8b") else data
    document = json.loads(text, parse_float=Decimal)
    events = document.get("traceEvents") if isinstance(document, dict) else document
    if not isinstance(events, list) or not any("ph" in event for event in events):
        return None
    return [event for event in events if event.get("ph") == "X"]


def _ns(event: Event) -> tuple[int, int]:
    start = round(event["ts"] * 1000)
    return start, start + round(event["dur"] * 1000)


def _thread(event: Event) -> tuple[Any, Any]:
    return event["pid"], event["tid"]


def classes(events: list[Event]) -> dict[str, list[Event]]:
    """The calls of modules by class."""
    found: dict[str, list[Event]] = {}
    for event in events:
        if event["name"].startswith(_MODULE):
            stem, _, number = event["name"].removeprefix(_MODULE).rpartition("_")
            found.setdefault(stem if number.isdigit() else "", []).append(event)
    found.pop("", None)
    return found


def ranges(events: list[Event]) -> dict[str, list[Event]]:
    """The annotated ranges by name."""
    found: dict[str, list[Event]] = {}
    for event in events:
        if event.get("cat") == "user_annotation":
            found.setdefault(event["name"], []).append(event)
    return found


def inside(launches: list[Event], calls: list[Event]) -> dict[int, Event]:
    """The call around each launch, by the launch's number."""
    times = [(*_ns(call), _thread(call), call) for call in calls]
    found = {}
    for launch in launches:
        start, end = _ns(launch)
        for begun, ended, thread, call in times:
            if begun <= start and end <= ended and thread == _thread(launch):
                found[launch["args"]["correlation"]] = call
    return found


def chosen(
    events: list[Event], launches: list[Event]
) -> tuple[str, list[Event], str] | None:
    """The class to examine, its calls and its kind. Attention comes first, then the
    class with the most launches, then the one with the most calls."""
    modules = classes(events)
    kind = "module" if modules else "annotation"
    found = modules or ranges(events)
    attention = {
        name: calls for name, calls in found.items() if _ATTENTION.search(name)
    }
    ranked = [
        (len(inside(launches, calls)), len(calls), name)
        for name, calls in (attention or found).items()
        if _are_disjoint(calls)
    ]
    if not ranked or not max(ranked)[0]:
        return None
    name = max(ranked)[2]
    return name, found[name], kind


def _are_disjoint(calls: list[Event]) -> bool:
    """Whether no call contains another one."""
    times = sorted((_thread(call), *_ns(call)) for call in calls)
    return all(
        one[0] != other[0] or one[2] <= other[1] for one, other in pairwise(times)
    )


def join(events: list[Event], capture: list[Event] | None) -> Plain | None:
    """Kernels and copies in the calls of the chosen class, or None without a class."""
    work = [event for event in events if event.get("cat") in _GPU]
    launches = _launches(events)
    by_number = {launch["args"]["correlation"]: launch for launch in launches}
    remarks = _remarks(work, launches, by_number)
    graphs = [launch for launch in launches if _GRAPH in launch["name"]]
    choice = chosen(capture or events, _launches(capture or events))
    if choice is None:
        return None
    name, calls, kind = choice
    if kind == "annotation":
        remarks.insert(0, "no nn.Module: an annotated range is examined")
    if capture is None:
        within = inside(launches, calls)
        mine = [one for one in work if one["args"]["correlation"] in within]
        ran = len(calls)
    else:
        mine = _replayed(work, graphs, capture, calls)
        ran = len(calls) * len(graphs)
    copies = sum(_COPY in one["name"] for one in mine)
    layers = len({call["name"] for call in calls})
    return Plain(name, layers, Counts(ran, len(mine), copies), remarks)


def _launches(events: list[Event]) -> list[Event]:
    return [
        event
        for event in events
        if event.get("cat") in _RUNTIME and _LAUNCH.match(event["name"])
    ]


def _replayed(
    work: list[Event], graphs: list[Event], capture: list[Event], calls: list[Event]
) -> list[Event]:
    """The kernels of each replay, matched in order with the capture's launches."""
    ran = {e["args"]["correlation"] for e in capture if e.get("cat") in _GPU}
    launches = [
        one for one in _launches(capture) if one["args"]["correlation"] not in ran
    ]
    recorded = sorted(launches, key=_ns)
    within = inside(recorded, calls)
    mine = []
    for graph in graphs:
        number = graph["args"]["correlation"]
        replay = sorted(
            (one for one in work if one["args"]["correlation"] == number), key=_ns
        )
        if [one["name"] for one in replay] != [
            one["args"].get("kernel") for one in recorded
        ]:
            continue
        mine += [
            one
            for one, launch in zip(replay, recorded, strict=True)
            if launch["args"]["correlation"] in within
        ]
    return mine


def _remarks(
    work: list[Event], launches: list[Event], by_number: dict[int, Event]
) -> list[str]:
    """What is missing or special in the file."""
    ran = {one["args"]["correlation"] for one in work}
    lost = Counter(
        "kernels" if "Launch" in one["name"] else one["name"]
        for one in launches
        if one["args"]["correlation"] not in ran
    )
    orphans = sum(one["args"]["correlation"] not in by_number for one in work)
    graphs = sum(_GRAPH in launch["name"] for launch in launches)
    gpus = {one["args"]["device"] for one in work}
    remarks = [f"{n} {what} without a record" for what, n in sorted(lost.items())]
    if orphans:
        remarks.append(f"{orphans} of {len(work)} records without a launch")
    if graphs:
        remarks.append(f"{graphs} graph replays")
    if len(gpus) > 1:
        remarks.append(f"{len(gpus)} GPUs")
    return remarks


def check(
    path: Path, plain: Plain | None, capture: Path | None
) -> tuple[str, Counts | None, str]:
    """``trace_check``'s verdict, its counts, and why it failed."""
    words = ["--module", "none", "--expect-layers", "1"]
    if plain:
        each = plain.counts.copies // max(plain.counts.calls, 1)
        words = ["--module", plain.module, "--expect-layers", str(plain.layers)]
        words += ["--expect-copies", str(each)]
    if capture:
        words += ["--capture", str(capture)]
    done = subprocess.run(
        [sys.executable, str(_CHECK), "--json", str(path), *words],
        capture_output=True,
        text=True,
        check=False,
    )
    report = json.loads(done.stdout)
    if not report["results"]:
        return "not read", None, report["findings"][0]["what"]
    (result,) = report["results"]
    after = result["after"]
    direct = [k["launches"] for k in after["kernels"] if k["kind"] == "direct copy"]
    counts = Counts(after["calls"], after["totals"]["kernels"], sum(direct))
    kind = "claims" if result["verdict"] == "fail" else "controls"
    broken = [check for check in result[kind] if not check["holds"]]
    why = [f"{one['name']}: {one['found'][:_FOUND]}" for one in broken[:_SHOWN]]
    if len(broken) > _SHOWN:
        why.append(f"{len(broken) - _SHOWN} more")
    attributed = counts if after["attributed"] else None
    return result["verdict"], attributed, "; ".join(why)


def row(path: Path, name: str) -> tuple[str, Agreement]:
    """A line of the table, and whether the two readers agree."""
    events = load(path)
    folder = path.parent / "capture_traces"
    recorded = sorted(folder.glob("*.json.gz")) if folder.is_dir() else []
    if events is None:
        verdict, _, why = check(path, None, None)
        right = Agreement.NOT_READ if verdict == "not read" else Agreement.DIFFERS
        return _line([name, "not a trace", "", "", verdict, why]), right
    replayed = recorded and any(_GRAPH in one["name"] for one in _launches(events))
    plain = join(events, load(recorded[0]) if replayed else None)
    verdict, counts, why = check(path, plain, folder if replayed else None)
    if plain is None:
        right = Agreement.NOT_READ if verdict == "not read" else Agreement.INVALID
        if verdict in ("pass", "fail"):
            right = Agreement.DIFFERS
        return _line([name, "no launches", "", "", verdict, why]), right
    right = Agreement.INVALID if verdict == "invalid" else Agreement.DIFFERS
    if counts == plain.counts:
        right = Agreement.EQUAL
    elif verdict == "not read":
        right = Agreement.NOT_READ
    cells = [
        name,
        f"`{plain.module}` x{plain.layers}",
        _text(plain.counts),
        _text(counts) if counts else "none",
        verdict,
        "; ".join(filter(None, [why, *plain.remarks])),
    ]
    return _line(cells), right


def _text(counts: Counts) -> str:
    return f"{counts.calls} / {counts.kernels} / {counts.copies}"


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("repositories", nargs="+", metavar="NAME@COMMIT=FOLDER")
    parser.add_argument("--page", type=Path, help="write the page to this file")
    arguments = parser.parse_args()
    rows, words = [], []
    counts: Counter[Agreement] = Counter()
    for repository in arguments.repositories:
        name, _, folder = repository.partition("=")
        words.append(f"{name}=FOLDER")
        rows.append(f"| **{name}** | | | | | |")
        for path in sorted(Path(folder).rglob("*.json*")):
            if path.name.endswith((".json", ".json.gz")):
                line, agreement = row(path, path.relative_to(folder).as_posix())
                counts[agreement] += 1
                rows.append(line)
                print(agreement.value, line, flush=True)
    if arguments.page:
        text = _PAGE.format(
            command=" \\\n    ".join(["bench/trace_public.py", *words, _WRITTEN]),
            files=counts.total(),
            summary="\n".join(f"| {one.value} | {counts[one]} |" for one in Agreement),
            table="\n".join(rows),
        )
        arguments.page.write_text(text)
    return 1 if counts[Agreement.DIFFERS] else 0


if __name__ == "__main__":
    sys.exit(main())
