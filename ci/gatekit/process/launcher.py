"""Commands and servers of the gate, each with a keeper: none outlives the gate."""

from __future__ import annotations

import os
import select
import shlex
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from http.client import HTTPException
from pathlib import Path
from typing import IO

from gatekit.records.stage import Serve
from overlaykit.cli import ROOT, say
from overlaykit.core.errors import EnvironmentFailure, Finding, not_started

_KEEPER = Path(__file__).with_name("keeper.py")
# A keeper's patience with what it kept, and with an engine that takes it away.
_STOP_S = 120
_SAY_EVERY_S = 10
_LOOK_EVERY_S = 1
_TAIL = 15


def run(
    command: Sequence[str],
    environment: Mapping[str, str],
    output: Path | None,
    log: Path,
    server: subprocess.Popen[bytes] | None = None,
    after: Sequence[Sequence[str]] = (),
) -> int:
    """The exit code. Standard output goes to a file, or with all else to the log and
    to standard error, as it comes. What asks a server that has died is ended, not
    waited for. ``after`` is run in the end, whatever becomes of this program. Raises
    EnvironmentFailure."""
    try:
        with log.open("ab") as said, _target(output) as out:
            process = _keep(command, environment, after, out or subprocess.PIPE)
            stream = process.stderr if out else process.stdout
            assert stream is not None
            try:
                while piece := _said(stream, process, server):
                    said.write(piece)
                    said.flush()
                    sys.stderr.buffer.write(piece)
                    sys.stderr.flush()
            except BaseException:
                end(process)
                raise
            return process.wait()
    except OSError as error:
        raise EnvironmentFailure(f"cannot write {log.parent}: {error}") from error


def _said(
    stream: IO[bytes],
    process: subprocess.Popen[bytes],
    server: subprocess.Popen[bytes] | None,
) -> bytes:
    """What it says next, nothing once it has ended. Not by lines: progress that moves
    within one is seen as well."""
    while not select.select([stream], [], [], _LOOK_EVERY_S)[0]:
        if server is not None and server.poll() is not None:
            end(process)
    return os.read(stream.fileno(), 1 << 16)


@contextmanager
def _target(output: Path | None) -> Iterator[IO[bytes] | None]:
    """Whole once the command has ended; before that under another name."""
    if output is None:
        yield None
        return
    part = output.with_name(f"{output.name}.part")
    with part.open("wb") as file:
        yield file
    part.replace(output)


def _keep(
    command: Sequence[str],
    environment: Mapping[str, str],
    after: Sequence[Sequence[str]],
    out: IO[bytes] | int,
    errors: IO[bytes] | None = None,
) -> subprocess.Popen[bytes]:
    ends = (word for one in after for word in ("--after", shlex.join(one)))
    try:
        return subprocess.Popen(
            [sys.executable, str(_KEEPER), *ends, *command],
            stdin=subprocess.PIPE,
            stdout=out,
            stderr=errors or (subprocess.STDOUT if out == subprocess.PIPE else -1),
            env={**os.environ, **environment},
            cwd=ROOT,
            # A Ctrl-C in the terminal is for this program, which ends its commands.
            start_new_session=True,
        )
    except OSError as error:
        # Its caller writes a log as well, and would take this for that.
        raise not_started(sys.executable, error) from error


def end(process: subprocess.Popen[bytes]) -> None:
    """The keeper ends the rest; it may have ended by itself."""
    assert process.stdin is not None
    process.stdin.close()
    try:
        process.wait(_STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@contextmanager
def serving(
    serve: Serve, log: Path, what: str, after: Sequence[Sequence[str]] = ()
) -> Iterator[subprocess.Popen[bytes]]:
    """A server that answers, on loopback, until the end of the block; ``after`` is run
    then, or once this program has been killed."""
    _free_or_refuse(serve.port, what)
    try:
        with log.open("ab") as said:
            process = _keep(serve.command, serve.environment, after, said, said)
    except OSError as error:
        raise EnvironmentFailure(f"cannot write {log}: {error}") from error
    try:
        _wait_for(serve, process, log, what)
        yield process
    finally:
        end(process)


def free_port() -> int:
    """A port on loopback that nobody has at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _free_or_refuse(port: int, what: str) -> None:
    with socket.socket() as probe:
        # As servers do: what a server has just left is not taken.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            finding = Finding(
                f"port {port} is taken: {error.strerror}",
                expected=f"a free port for {what}",
                next_step="end what listens there, or set server.port to 0 (any) in "
                "the profile",
            )
            raise EnvironmentFailure("the port is taken", (finding,)) from error


def _wait_for(
    serve: Serve, process: subprocess.Popen[bytes], log: Path, what: str
) -> None:
    url = f"http://127.0.0.1:{serve.port}{serve.health}"
    started = said = time.monotonic()
    while time.monotonic() - started < serve.deadline_s:
        if (code := process.poll()) is not None:
            raise _no_server(what, f"it ended with exit code {code}", log)
        if _healthy(url):
            return
        if time.monotonic() - said > _SAY_EVERY_S:
            said = time.monotonic()
            waited = round(said - started)
            say(f"waiting for {what}: {waited} s")
        time.sleep(0.2)
    found = f"it runs and does not answer after {serve.deadline_s} s"
    raise _no_server(what, f"{url}: {found}", log)


def _healthy(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5):
            return True
    except (HTTPException, OSError, ValueError):
        return False


def _no_server(what: str, found: str, log: Path) -> EnvironmentFailure:
    finding = Finding(
        "the server did not get healthy",
        path=str(log),
        expected="an answer with status 200",
        found=f"{found}\n{tail(log)}".rstrip(),
        next_step="read its log; server.deadline_s and server.command are the "
        "profile's",
    )
    return EnvironmentFailure(f"{what} did not start", (finding,))


def tail(log: Path) -> str:
    """The log's last lines, indented."""
    try:
        lines = log.read_text(errors="replace").splitlines()[-_TAIL:]
    except OSError:
        return ""
    return "\n".join(f"            {line}" for line in lines)


def remove(command: Sequence[str]) -> None:
    """Take away what is not there any more, mostly: no matter then."""
    with suppress(OSError, subprocess.TimeoutExpired):
        subprocess.run(command, capture_output=True, check=False, timeout=_STOP_S)
