"""The same traces give the same bytes, with any hash seed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import ROOT
from support.profiler_traces import Document, as_profiler
from support.small_traces import LAYERS, MODULE, call, document, eager, ran, replay_of

H200 = ROOT / "tests" / "data" / "traces" / "h200-m64"
_SEEDS = ("0", "1", "2", "3")


def replays() -> Document:
    """Two replays, each split at a different kernel."""
    events = []
    for number in (50, 51):
        names = [f"kernel_of_its_own_{number}", "gemm_a8w8", "gemm_a8w8"]
        events.append(call("hipGraphLaunch", number, 100.0 * number))
        events += [
            ran(name, number, 100.0 * number + 5 * (at + 1))
            for at, name in enumerate(names)
        ]
    return document(events)


def orphans() -> Document:
    """Kernels without their launches."""
    trace = eager(copies=((30.0, 33.0), (40.0, 43.0)))
    lost = [event for event in trace["traceEvents"] if event["cat"] == "kernel"]
    for number, event in enumerate(lost):
        event["args"]["correlation"] = 5000 - number
    return trace


def written(folder: Path) -> dict[str, list[str]]:
    """Command lines by name."""
    made = {
        "replays": replays(),
        "replay": replay_of(eager()),
        "orphans": orphans(),
        "copies": eager(copies=((30.0, 33.0),)),
        "none": eager(),
    }
    for name, trace in made.items():
        (folder / f"{name}.json").write_bytes(as_profiler(trace))
    small = ["--module", MODULE, "--expect-layers", str(LAYERS)]
    one = ["--module", MODULE, "--expect-layers", "1"]
    after, before = (
        str(H200 / f"{arm}-eager-TP-0-DECODE.trace.json.gz")
        for arm in ("series", "pristine")
    )
    paths = {name: str(folder / f"{name}.json") for name in made}
    return {
        "two replays": [paths["replays"], *one],
        "a replay": [paths["replay"], *small, "--capture", paths["none"]],
        "what is lost": [paths["orphans"], *small, "--baseline", paths["copies"]],
        "before and after": [paths["none"], *small, "--baseline", paths["copies"]],
        "another kind": [paths["copies"], "--module", "Other", "--expect-layers", "2"],
        "H200": [after, "--baseline", before, "--expect-layers", "3"],
        "H200, reversed": [before, "--baseline", after, "--expect-layers", "3"],
    }


_ASKED = (
    "two replays", "a replay", "what is lost", "before and after", "another kind",
    "H200", "H200, reversed",
)  # fmt: skip


@pytest.mark.parametrize("asked", _ASKED)
def test_reports_do_not_depend_on_hashes(asked: str, tmp_path: Path) -> None:
    words = written(tmp_path)[asked]
    found = set()
    for seed in _SEEDS:
        html, svg = tmp_path / "page.html", tmp_path / "plot.svg"
        drawn = ["--html", str(html), "--svg", str(svg)]
        outputs = []
        for form in ([], ["--json"]):
            verb = [sys.executable, str(ROOT / "ci" / "trace_check.py")]
            done = subprocess.run(
                [*verb, *words, *form, *drawn],
                capture_output=True,
                env={**os.environ, "PYTHONHASHSEED": seed},
                check=False,
                timeout=120,
            )
            assert done.returncode in (0, 1, 4), done.stderr
            outputs += [done.stdout, done.stderr, html.read_bytes(), svg.read_bytes()]
        found.add(tuple(outputs))
    assert len(found) == 1
