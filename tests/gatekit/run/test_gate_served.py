"""The stages that need SGLang's server, with a stand-in for it.

As in the benchmark's own tests, the client is the real ``sglang.bench_serving`` of the
pinned wheel and the server is a stand-in. The traces are real ones from an H200; the
test's client copies them in place of a profiler.
"""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from conftest import ROOT, Pins
from support.gate_runs import REBUILD, Copy, kill_9, profile, results, served
from support.patience import wait_until
from support.serving_client import lay_out, skip_without_packages

pytestmark = pytest.mark.slow("the gate runs whole, on a real model")

TRACES = ROOT / "tests" / "data" / "traces" / "h200-m64"
STAND_IN = ROOT / "tests" / "support" / "serving_stand_in.py"
SERVER = served(STAND_IN, "{port}", 0.002, more='health = "/v1/models"')
POINTS = ("24/8/1", "16/8/2")
# One round decides nothing, however the machine behaves.
ROUNDS = 1

COPY_TRACES = """
import json, pathlib, shutil, sys, time
designs, source, arm, to, seconds = sys.argv[1:]
time.sleep(float(seconds))
pathlib.Path(to).mkdir(exist_ok=True)
name = "eager-TP-0-DECODE.trace.json.gz"
shutil.copy(source + "/" + json.loads(designs)[arm] + "-" + name, to + "/" + name)
"""


def traces(baseline: str, patched: str, seconds: float = 0) -> str:
    """A [traces] section whose client copies one design's traces for each arm."""
    designs = json.dumps({"baseline": baseline, "patched": patched})
    arguments = (designs, str(TRACES), "{arm}", "{traces}", str(seconds))
    words = ("{gate_python}", "-c", COPY_TRACES, *arguments)
    return f"[traces]\nlayers = 3\nclient = {json.dumps(words)}"


def test_traces_pass_and_resume_when_killed(
    repository: Copy, out: Path, tmp_path: Path
) -> None:
    path = profile(tmp_path, REBUILD, SERVER, traces("pristine", "series", 6))
    process = repository.start(path, out)
    try:
        wait_until(lambda: any(out.glob("traces/*/profile-patched.log")))
        time.sleep(1)
    finally:
        kill_9(process, out)
    before = results(out)
    ended = repository.gate(path, out, "--resume")
    assert ended.states["traces"] == "pass", ended.all_output
    assert {name: results(out)[name] for name in before} == before
    # This stage passed on a stand-in, and other stages did not run.
    assert ended.code == 4 and ended.document["verdict"] == "inconclusive"
    [stage] = [s for s in ended.document["stages"] if s["name"] == "traces"]
    assert {"baseline", "compare"} == {*stage["evidence"]}
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "<svg" in page


@pytest.mark.parametrize(
    ("baseline", "patched", "step"),
    [("pristine", "pristine", "compare"), ("series", "series", "baseline")],
)
def test_traces_with_wrong_copies_fail(
    baseline: str, patched: str, step: str, repository: Copy, out: Path, tmp_path: Path
) -> None:
    """Copies that remain, and a baseline without copies."""
    path = profile(tmp_path, REBUILD, SERVER, traces(baseline, patched))
    ended = repository.gate(path, out)
    assert ended.code == 1, ended.all_output
    assert ended.states["traces"] == "fail"
    assert ended.reason("traces").startswith(f"{step}: ")


def test_killed_benchmark_loses_no_run(
    repository: Copy, out: Path, tmp_path: Path, pins: Pins
) -> None:
    skip_without_packages()
    client = lay_out(pins.wheels["sglang"], tmp_path / "client")
    python = ["env", f"PYTHONPATH={client}", "{gate_python}"]
    points = [[int(n) for n in point.split("/")] for point in POINTS]
    section = (
        f"[bench]\npoints = {points}\nrounds = {ROUNDS}\npython = {json.dumps(python)}"
    )
    path = profile(tmp_path, REBUILD, SERVER, section)
    process = repository.start(path, out)
    try:
        wait_until(lambda: bool(recorded(out)))
    finally:
        kill_9(process, out)
    kept = recorded(out)
    ended = repository.gate(path, out, "--resume")
    states = ended.states
    assert [states[f"bench:{point}"] for point in POINTS] == ["pass"] * 2, (
        ended.all_output
    )
    assert states["bench"] == "inconclusive", ended.all_output
    rows = recorded(out)
    assert {name: lines[: len(kept.get(name, []))] for name, lines in rows.items()} == {
        name: kept.get(name, []) for name in rows
    }
    assert {len(lines) for lines in rows.values()} == {2 * ROUNDS}


def recorded(out: Path) -> dict[str, list[str]]:
    """Every recorded run, by the point's folder."""
    return {
        path.parts[-3]: path.read_text().splitlines()
        for path in out.glob("bench-*/*/records.jsonl")
        if path.read_text().endswith("\n")
    }
