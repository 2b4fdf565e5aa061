"""Make the runs.

A run is recorded when it ends and is never repeated. Partial runs (interrupted, or the
server or client died) are repeated. A run with failed requests is recorded like any
other: repeating it until it looks good would bias the result. The number of failed
attempts is recorded too.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from gatekit.process.servers import answers, flush, spawn, start, stop
from gatekit.records import runs as records
from gatekit.serving.plan import Arm, Bench, PlannedRun, ServingRun, remaining
from gatekit.serving.reading import Measurement, read
from overlaykit.core.errors import EnvironmentFailure, Finding, InputError
from overlaykit.core.files import write_whole
from overlaykit.core.locks import folder_locked

# Time for a server to answer while it is still busy with requests of a dead client.
_ALIVE_S = 60


def execute(bench: Bench, say: Callable[[str], None]) -> Iterator[ServingRun]:
    """Make every run that is not recorded yet; each is recorded before it is yielded.

    Raises EnvironmentFailure if a run cannot be completed; earlier runs are kept.
    """
    try:
        # Two processes would disturb each other's measurements and files.
        with folder_locked(bench.out / "lock"):
            (bench.out / "raw").mkdir(exist_ok=True)
            yield from _execute(bench, say)
    except OSError as error:
        raise EnvironmentFailure(f"cannot write to {bench.out}: {error}") from error


def _execute(bench: Bench, say: Callable[[str], None]) -> Iterator[ServingRun]:
    left, _ = remaining(bench)
    server: subprocess.Popen[bytes] | None = None
    serving: tuple[str, int] | None = None
    try:
        for number, run in enumerate(left, 1):
            arm = bench.arm(run.arm)
            # Restart for every round, because speed varies between server starts.
            if server and serving != (run.arm, run.round):
                stop(server)
                server = None
            if arm.start and not server:
                log = bench.out / f"server-{arm.name}.log"
                say(f"starting the {arm.name} server; its log is {log}")
                server = start(arm.start, arm.url, log, bench.start_timeout_s)
                serving = (run.arm, run.round)
            say(f"run {number} of {len(left)}: {run}")
            made = _run(bench, run, arm, server)
            say(f"  {made.seconds:.0f} s")
            yield made
    finally:
        if server:
            stop(server)


def _run(
    bench: Bench, run: PlannedRun, arm: Arm, server: subprocess.Popen[bytes] | None
) -> ServingRun:
    argv = bench.argv(run)
    output = Path(argv[argv.index("--output-file") + 1])
    output.unlink(missing_ok=True)
    flush(arm.url)
    log = output.with_suffix(".log")
    started, clock = time.time(), time.monotonic()
    try:
        _client(argv, log, bench.run_timeout_s)
        seconds = time.monotonic() - clock
        measurement = _measured(output)
    except _NoMeasurement as nothing:
        gone = _server_death(arm, server)
        raise _unable(run, log, f"{nothing}, {gone}" if gone else str(nothing)) from (
            nothing.__cause__
        )
    # Requests that failed because the server died do not measure the server.
    if gone := _server_death(arm, server):
        raise _unable(run, log, gone)
    _reduce(output)
    record = ServingRun(
        arm=arm.name,
        origin=arm.origin,
        started=started,
        seconds=round(seconds, 3),
        round=run.round,
        host=bench.host,
        failed_attempts=len(_failed(log)),
        measurement=measurement,
        argv=tuple(argv),
    )
    records.append(bench.records, record)
    return record


class _NoMeasurement(Exception):
    """The client did not produce a measurement."""


def _client(argv: list[str], log: Path, timeout_s: float) -> None:
    with log.open("wb") as file:
        process = spawn(argv, file, "the client")
        try:
            code = process.wait(timeout=timeout_s)
        except subprocess.TimeoutExpired as error:
            raise _NoMeasurement(f"still running after {timeout_s:g} s") from error
        finally:
            stop(process)
    if code:
        raise _NoMeasurement(f"signal {-code}" if code < 0 else f"exit code {code}")


def _measured(output: Path) -> Measurement:
    if not output.exists():
        raise _NoMeasurement("exit code 0 but no result")
    try:
        measurements = read(output)
    except InputError as error:
        raise _NoMeasurement(f"an invalid result ({error.message})") from error
    if len(measurements) != 1:
        raise _NoMeasurement(f"{len(measurements)} results")
    return measurements[0]


def _server_death(arm: Arm, server: subprocess.Popen[bytes] | None) -> str:
    """How a dead server was noticed; empty if the server is up."""
    if server and server.poll() is not None:
        return f"the server ended with exit code {server.returncode}"
    return "" if answers(arm.url, _ALIVE_S) else f"no server answers at {arm.url}"


def _reduce(output: Path) -> None:
    """Remove large unused fields: the time of each token, and the texts."""
    line = json.loads(output.read_text(encoding="utf-8"))
    for name in ("itls", "generated_texts"):
        line.pop(name, None)
    write_whole(output, json.dumps(line) + "\n")


def _failed(log: Path) -> list[Path]:
    """The logs of a run's failed attempts."""
    return list(log.parent.glob(f"{log.stem}.failed-*.log"))


def _unable(run: PlannedRun, log: Path, found: str) -> EnvironmentFailure:
    """Renames the log, because the next attempt writes a new one."""
    kept = log.with_suffix(f".failed-{len(_failed(log)) + 1}.log")
    os.replace(log, kept)
    lines = kept.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    finding = Finding(
        f"{run} produced no measurement and is not recorded",
        path=str(kept),
        expected="exit code 0, one result, and a server that is still up",
        found=f"{found}; last line of the client: {lines[-1] if lines else 'nothing'}",
        next_step="run the same command again to resume with this run",
    )
    return EnvironmentFailure("cannot complete a run", (finding,))
