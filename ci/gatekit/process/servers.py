"""Servers and processes in sessions of their own, ended with all their children."""

from __future__ import annotations

import os
import signal
import subprocess
import urllib.error
import urllib.request
from collections.abc import Sequence
from contextlib import suppress
from http.client import HTTPException
from pathlib import Path
from typing import IO

from gatekit.process.probe import require_answer, responds
from overlaykit.core.errors import EnvironmentFailure, Finding, not_started

_FLUSH_S = 60
_STOP_S = 60


def flush(url: str) -> None:
    """Flush the server's cache and check that it did. The client also requests a flush
    before it measures, but before 0.5.17 it ignores the answer."""
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
            next_step="check that it is an SGLang server, up, with no other requests",
        )
        raise EnvironmentFailure("cannot flush the cache", (finding,)) from error


def start(
    argv: Sequence[str], url: str, log: Path, timeout_s: float
) -> subprocess.Popen[bytes]:
    """Start a server and wait until it answers. Raises EnvironmentFailure, also if
    another server already answers there: it would be measured instead."""
    if answers(url):
        finding = Finding(
            "another server already answers at this address",
            path=url,
            next_step="stop it, or leave out the option that starts a server",
        )
        raise EnvironmentFailure("the address is in use", (finding,))
    with log.open("ab") as file:
        process = spawn(argv, file, "the server")
    try:
        step = "read the log, and check the command that starts the server"
        require_answer(process, _models(url), timeout_s, log, "a server", step)
    except BaseException:
        stop(process)
        raise
    return process


def _models(url: str) -> str:
    return f"{url}/v1/models"


def answers(url: str, timeout_s: float = 5) -> bool:
    """Whether a server answers within the timeout; a busy one may not."""
    return responds(_models(url), timeout_s)


def spawn(argv: Sequence[str], log: IO[bytes], what: str) -> subprocess.Popen[bytes]:
    """Start a process in its own session, so that :func:`stop` reaches its children."""
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
    """End a process and its children: SIGTERM, then SIGKILL after a wait, or at once if
    the wait is interrupted. The process may already have ended."""
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
