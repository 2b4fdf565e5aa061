"""Making the runs.

A run is recorded as it ends and never made again; one that was interrupted is made
anew, for half a run is none. One that went wrong (a request that failed) is recorded
like any other: making it again until it looks well would be choosing.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import records
from overlaykit.errors import EnvironmentFailure, Finding
from serving.plan import Arm, Bench, Planned, ServingRun, remaining
from serving.processes import flush, spawn, start, stop
from serving.reading import read


def execute(bench: Bench, say: Callable[[str], None]) -> Iterator[ServingRun]:
    """Make every run that is not recorded yet; each is recorded before it is given.

    Raises EnvironmentFailure where a run cannot be made; those before it are kept.
    """
    left, _ = remaining(bench)
    try:
        (bench.out / "raw").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise EnvironmentFailure(f"cannot write to {bench.out}: {error}") from error
    serving: tuple[tuple[str, int], subprocess.Popen[bytes]] | None = None
    try:
        for number, run in enumerate(left, 1):
            arm = bench.arm(run.arm)
            # A start of its own for every round: a server's luck is one draw.
            block = (run.arm, run.round)
            if serving and serving[0] != block:
                stop(serving[1])
                serving = None
            if arm.start and not serving:
                say(f"starting the {arm.name} server")
                serving = (block, _serve(arm, bench))
            say(f"run {number} of {len(left)}: {run}")
            yield _run(bench, run, arm)
    finally:
        if serving:
            stop(serving[1])


def _serve(arm: Arm, bench: Bench) -> subprocess.Popen[bytes]:
    log = bench.out / f"server-{arm.name}.log"
    return start(arm.start, arm.url, log, bench.start_timeout_s)


def _run(bench: Bench, run: Planned, arm: Arm) -> ServingRun:
    argv = bench.argv(run)
    output = Path(argv[argv.index("--output-file") + 1])
    output.unlink(missing_ok=True)
    flush(arm.url)
    started, clock = time.time(), time.monotonic()
    log = output.with_suffix(".log")
    with log.open("wb") as file:
        process = spawn(argv, file, "the client")
        try:
            code = process.wait(timeout=bench.run_timeout_s)
        except subprocess.TimeoutExpired as error:
            raise _unable(
                run, log, f"no end after {bench.run_timeout_s:g} s"
            ) from error
        finally:
            stop(process)
    seconds = time.monotonic() - clock
    if code or not output.exists():
        raise _unable(run, log, f"exit code {code}")
    measurements = read(output)
    if len(measurements) != 1:
        raise _unable(run, log, f"{len(measurements)} results")
    _reduce(output)
    record = ServingRun(
        arm=run.arm,
        origin=arm.origin,
        started=started,
        seconds=round(seconds, 3),
        round=run.round,
        measurement=measurements[0],
        argv=tuple(argv),
    )
    records.append(bench.records, record)
    return record


def _reduce(output: Path) -> None:
    """Leave out what is large and not used: each token's time, and the texts."""
    line = json.loads(output.read_text(encoding="utf-8"))
    for name in ("itls", "generated_texts"):
        line.pop(name, None)
    output.write_text(json.dumps(line) + "\n", encoding="utf-8")


def _unable(run: Planned, log: Path, found: str) -> EnvironmentFailure:
    text = log.read_text(encoding="utf-8", errors="replace").strip()
    finding = Finding(
        f"{run}: the client failed",
        path=str(log),
        expected="exit code 0 and one result",
        found=f"{found}; it said last: {text.splitlines()[-1] if text else 'nothing'}",
        next_step="the same command goes on with this run",
    )
    return EnvironmentFailure("a run could not be made", (finding,))
