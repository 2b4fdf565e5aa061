"""Real profiler traces, edited and written in any layout, for tests and benchmarks.

An edit changes only some events of a real trace, so that the result is what a profiler
would write if it lost, renamed or moved those events.
"""

from __future__ import annotations

import gzip
import json
import pickle
from bisect import bisect_right
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from gatekit.traces.verdicts import Assessment
from support.data import DATA

Event = dict[str, Any]
Document = dict[str, Any]

TRACES = DATA / "traces"
EAGER = TRACES / "sglang_prefilldecode" / "sglang_Qwen3-8B_prefilldecode.json.gz"
REPLAY = TRACES / "sglang_decode" / "sglang_Qwen3-8B_decode.json.gz"
CAPTURE = TRACES / "sglang_decode" / "capture_traces" / "bs_32_rank0.json.gz"

needs_traces = pytest.mark.skipif(
    not EAGER.is_file(),
    reason=f"no real traces under {DATA}: set OVERLAY_TESTDATA",
)
GPU = ("kernel", "gpu_memcpy", "gpu_memset")
COPY = "direct_copy_kernel"


@cache
def _loaded(path: Path, whole: bool) -> bytes:
    with gzip.open(path) as file:
        document: Document = json.load(file)
    if not whole:
        document["traceEvents"] = [
            e for e in document["traceEvents"] if _is_relevant(e)
        ]
    return pickle.dumps(document)


def _is_relevant(event: Event) -> bool:
    """Whether an event matters to the tests: nine tenths of a trace are Python frames,
    operators and flow arrows."""
    frame = event.get("cat") == "python_function"
    if frame:
        return bool(event["name"].startswith("nn.Module: "))
    return event.get("cat") not in ("cpu_op", "ac2g", "cpu_instant_event")


def load(path: Path, whole: bool = False) -> Document:
    """A trace to edit: with all its events, or those about modules and kernels."""
    document: Document = pickle.loads(_loaded(path, whole))
    return document


def spans(document: Document, module: str) -> list[Event]:
    """The calls of a class of modules, in order."""
    prefix = f"nn.Module: {module}_"
    events = [e for e in document["traceEvents"] if e["name"].startswith(prefix)]
    return sorted(events, key=lambda event: event["ts"])


def inside(document: Document, module: str) -> set[int]:
    """The correlation ids of the launches in the module's calls."""
    calls = spans(document, module)
    starts = [call["ts"] for call in calls]

    def within(time: float) -> bool:
        at = bisect_right(starts, time) - 1
        return at >= 0 and bool(time < starts[at] + calls[at]["dur"])

    return {
        event["args"].get("correlation")
        for event in document["traceEvents"]
        if event.get("cat") == "cuda_runtime" and within(event["ts"])
    }


def correlation(event: Event) -> int | None:
    found: int | None = event.get("args", {}).get("correlation")
    return found


def drop(document: Document, lost: Callable[[Event], bool]) -> Document:
    """The document without the events for which ``lost`` is true."""
    kept = [event for event in document["traceEvents"] if not lost(event)]
    assert len(kept) < len(document["traceEvents"]), "nothing to drop"
    document["traceEvents"] = kept
    return document


def change(document: Document, edit: Callable[[Event], bool]) -> Document:
    """The document with events edited in place; ``edit`` returns whether it did."""
    assert sum(edit(event) for event in document["traceEvents"]), "nothing to change"
    return document


def without_copies(document: Document, module: str = "Qwen3Attention") -> Document:
    """The document as if the module's copies had not been launched."""
    mine = inside(document, module)
    gone = {
        correlation(event)
        for event in document["traceEvents"]
        if event.get("cat") in GPU
        and COPY in event["name"]
        and correlation(event) in mine
    }
    return drop(document, lambda event: correlation(event) in gone)


def profiler_text(event: Event) -> str:
    """One event as the profiler writes it, between the braces."""

    def line(names: Iterable[str]) -> str:
        return ", ".join(
            f"{json.dumps(name)}: {json.dumps(event[name])}"
            for name in names
            if name in event
        )

    first: list[str] = ["ph", "cat", "name", "pid", "tid"]
    if event.get("ph", "X") in "sf":
        first = ["ph", "id", "pid", "tid", "ts", "cat", "name", "bp"]
    times = [name for name in event if name not in first and name != "args"]
    lines = [line(first), *([line(times)] if times else [])]
    if "args" in event:
        args = json.dumps(event["args"])[1:-1]
        lines.append(f'"args": {{\n      {args}\n    }}')
    return ",\n    ".join(lines)


def as_profiler(document: Document) -> bytes:
    """The document in the profiler's own layout."""
    rest = {name: value for name, value in document.items() if name != "traceEvents"}
    name = rest.pop("traceName", "")
    head = json.dumps(rest)[1:-1]
    events = "\n  },\n  {\n    ".join(map(profiler_text, document["traceEvents"]))
    text = (
        f'\n  {{\n  {head},\n  "traceEvents": [\n  {{\n    {events}\n  }}\n  ],\n'
        f'  "traceName": {json.dumps(name)}\n}}\n'
    )
    return text.encode()


def write(path: Path, document: Document) -> Path:
    """Write it in the profiler's layout, compressed if the name ends in .gz."""
    text = as_profiler(document)
    path.write_bytes(gzip.compress(text, 1) if path.suffix == ".gz" else text)
    return path


def as_json(document: Document) -> bytes:
    """As a program other than the profiler would write it."""
    return json.dumps(document).encode()


def broken(assessment: Assessment) -> set[str]:
    """The names of the checks that do not hold."""
    checks = (*assessment.controls, *assessment.claims)
    return {check.name for check in checks if not check.holds}
