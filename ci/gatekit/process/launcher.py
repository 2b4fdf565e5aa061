"""Runs the gate's commands and servers, each under a keeper that ends with the gate."""

from __future__ import annotations

import os
import select
import shlex
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from gatekit.process.probe import require_answer
from gatekit.records.stage import Serve
from overlaykit.cli import ROOT
from overlaykit.core.errors import EnvironmentFailure, Finding, not_started

_KEEPER = Path(__file__).with_name("keeper.py")
# Longer than a keeper needs to end its command and to run the commands after it.
_STOP_S = 120
_LOOK_EVERY_S = 1
_STEP = "read the log; the profile sets server.command and server.deadline_s"


def run(
    command: Sequence[str],
    environment: Mapping[str, str],
    output: Path | None,
    log: Path,
    server: subprocess.Popen[bytes] | None = None,
    after: Sequence[Sequence[str]] = (),
) -> int:
    """Run a command and return its exit code.

    Standard output goes to the file ``output``. Everything else goes to the log and to
    standard error as it appears; so does standard output if there is no such file. The
    command is ended early if ``server`` ends. The keeper runs ``after`` at the end,
    even if this program is killed. Raises EnvironmentFailure.
    """
    try:
        with log.open("ab") as said, _target(output) as out:
            process = _start(command, environment, after, out or subprocess.PIPE)
            stream = process.stderr if out else process.stdout
            assert stream is not None
            try:
                while piece := _next_piece(stream, process, server):
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


def _next_piece(
    stream: IO[bytes],
    process: subprocess.Popen[bytes],
    server: subprocess.Popen[bytes] | None,
) -> bytes:
    """The next output, or nothing once the process has ended. Does not wait for whole
    lines, so that progress within a line shows at once."""
    while not select.select([stream], [], [], _LOOK_EVERY_S)[0]:
        if server is not None and server.poll() is not None:
            end(process)
    return os.read(stream.fileno(), 1 << 16)


@contextmanager
def _target(output: Path | None) -> Iterator[IO[bytes] | None]:
    """The file has its final name only once the command has ended."""
    if output is None:
        yield None
        return
    part = output.with_name(f"{output.name}.part")
    with part.open("wb") as file:
        yield file
    part.replace(output)


def _start(
    command: Sequence[str],
    environment: Mapping[str, str],
    after: Sequence[Sequence[str]],
    out: IO[bytes] | int,
    errors: IO[bytes] | None = None,
) -> subprocess.Popen[bytes]:
    options = (word for one in after for word in ("--after", shlex.join(one)))
    try:
        return subprocess.Popen(
            [sys.executable, str(_KEEPER), *options, *command],
            stdin=subprocess.PIPE,
            stdout=out,
            stderr=errors or (subprocess.STDOUT if out == subprocess.PIPE else -1),
            env={**os.environ, **environment},
            cwd=ROOT,
            # Ctrl-C in the terminal reaches this program only; it ends its commands.
            start_new_session=True,
        )
    except OSError as error:
        # The caller reports an OSError as a failure to write the log.
        raise not_started(sys.executable, error) from error


def end(process: subprocess.Popen[bytes]) -> None:
    """Close the keeper's standard input: it then ends its command and itself."""
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
    """A healthy server on loopback for the duration of the block. The keeper runs
    ``after`` at the end, even if this program is killed."""
    _require_free_port(serve.port, what)
    try:
        with log.open("ab") as said:
            process = _start(serve.command, serve.environment, after, said, said)
    except OSError as error:
        raise EnvironmentFailure(f"cannot write {log}: {error}") from error
    try:
        url = f"http://127.0.0.1:{serve.port}{serve.health}"
        require_answer(process, url, serve.deadline_s, log, what, _STEP)
        yield process
    finally:
        end(process)


def free_port() -> int:
    """A loopback port that is free right now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _require_free_port(port: int, what: str) -> None:
    with socket.socket() as probe:
        # Servers set this option too: a port that a server just closed is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            finding = Finding(
                f"port {port} is in use: {error.strerror}",
                expected=f"a free port for {what}",
                next_step="stop the program that listens there, or set server.port to "
                "0 (any free port) in the profile",
            )
            raise EnvironmentFailure("the port is in use", (finding,)) from error


def remove(command: Sequence[str]) -> None:
    """Run a command that removes a leftover; usually there is none, so errors are
    ignored."""
    with suppress(OSError, subprocess.TimeoutExpired):
        subprocess.run(command, capture_output=True, check=False, timeout=_STOP_S)
