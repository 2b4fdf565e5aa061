"""Processes that are ended with all they started, and servers that answer."""

from __future__ import annotations

import os
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from contextlib import suppress
from http.client import HTTPException
from pathlib import Path
from typing import IO

from overlaykit.core.errors import EnvironmentFailure, Finding, not_started

_FLUSH_S = 60
_STOP_S = 60


def flush(url: str) -> None:
    """Flush here too, and see that it was done: the client asks for it before it
    measures, and before 0.5.17 does not look at the answer."""
    request = urllib.request.Request(f"{url}/flush_cache", method="POST")
    try:
        with urllib.request.urlopen(request, timeout=_FLUSH_S):
            return
    except (HTTPException, OSError, ValueError) as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        finding = Finding(
            "the server did not flush its cache",
            path=url,
            found=str(reason),
            next_step="is it an SGLang server, up, and without other requests?",
        )
        raise EnvironmentFailure("cannot flush the cache", (finding,)) from error


def start(
    argv: Sequence[str], url: str, log: Path, timeout_s: float
) -> subprocess.Popen[bytes]:
    """A server that answers. Raises EnvironmentFailure, also where another server
    answers already: it would be measured in place of this one."""
    if answers(url):
        finding = Finding(
            "a server answers already where one was to be started",
            path=url,
            next_step="end it, or leave out the command that starts one",
        )
        raise EnvironmentFailure("the address is taken", (finding,))
    with log.open("ab") as file:
        process = spawn(argv, file, "the server")
    deadline = time.monotonic() + timeout_s
    try:
        while time.monotonic() < deadline:
            if process.poll() is not None:
                break
            if answers(url):
                return process
            time.sleep(0.2)
    except BaseException:
        stop(process)
        raise
    code = process.poll()
    stop(process)
    finding = Finding(
        "the server does not answer",
        path=str(log),
        expected=f"an answer from {url}/v1/models",
        found="it runs" if code is None else f"it ended with exit code {code}",
    )
    raise EnvironmentFailure("a server did not start", (finding,))


def answers(url: str, timeout_s: float = 5) -> bool:
    """Whether a server is there, and not too busy to say so in that time."""
    try:
        with urllib.request.urlopen(f"{url}/v1/models", timeout=timeout_s):
            return True
    except (HTTPException, OSError, ValueError):
        return False


def spawn(argv: Sequence[str], log: IO[bytes], what: str) -> subprocess.Popen[bytes]:
    """In a session of its own, so that all its processes can be ended."""
    try:
        return subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    except OSError as error:
        raise not_started(what, error) from error


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a process and those it started, by force after a while, or at once where
    this is interrupted. It may have ended by itself."""
    try:
        _signal(process, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=_STOP_S)
    finally:
        _signal(process, signal.SIGKILL)
        process.wait()


def _signal(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, number)
