"""Whether a server answers, and waiting until it does."""

from __future__ import annotations

import subprocess
import time
import urllib.request
from http.client import HTTPException
from pathlib import Path

from overlaykit.cli import say
from overlaykit.core.errors import EnvironmentFailure, Finding

_POLL_S = 0.2
_SAY_EVERY_S = 10
_TAIL = 15


def responds(url: str, timeout_s: float = 5) -> bool:
    """Whether a GET of this URL succeeds within the timeout."""
    try:
        with urllib.request.urlopen(url, timeout=timeout_s):
            return True
    except (HTTPException, OSError, ValueError):
        return False


def require_answer(
    process: subprocess.Popen[bytes],
    url: str,
    timeout_s: float,
    log: Path,
    what: str,
    step: str,
) -> None:
    """Wait until the server that was just started answers. Raises EnvironmentFailure
    if the server ends or the time is up."""
    started, said = time.monotonic(), 0.0
    while (waited := time.monotonic() - started) < timeout_s:
        if process.poll() is not None:
            break
        if responds(url):
            return
        if waited - said > _SAY_EVERY_S:
            said = waited
            say(f"waiting for {what}: {round(waited)} s")
        time.sleep(_POLL_S)
    code = process.poll()
    if code is None:
        found = f"{url}: no answer after {timeout_s:g} s; the server still runs"
    else:
        found = f"the server ended with exit code {code}"
    finding = Finding(
        "the server failed its health check",
        path=str(log),
        expected="an answer with status 200",
        found=f"{found}\n{tail(log)}".rstrip(),
        next_step=step,
    )
    raise EnvironmentFailure(f"{what} did not start", (finding,))


def tail(log: Path) -> str:
    """The log's last lines, indented."""
    try:
        lines = log.read_text(errors="replace").splitlines()[-_TAIL:]
    except OSError:
        return ""
    return "\n".join(f"            {line}" for line in lines)
