"""Whether a server answers, and waiting until it does."""

from __future__ import annotations

import subprocess
import time
import urllib.request
from collections.abc import Callable
from http.client import HTTPException

_POLL_S = 0.2


def responds(url: str, timeout_s: float = 5) -> bool:
    """Whether a GET of this URL succeeds within the timeout."""
    try:
        with urllib.request.urlopen(url, timeout=timeout_s):
            return True
    except (HTTPException, OSError, ValueError):
        return False


def starts(
    process: subprocess.Popen[bytes],
    url: str,
    timeout_s: float,
    waiting: Callable[[float], None] = lambda _: None,
) -> bool:
    """Whether the URL responds before the timeout; False once the process has ended.

    ``waiting`` is called after each failed attempt with the seconds waited so far.
    """
    started = time.monotonic()
    while (waited := time.monotonic() - started) < timeout_s:
        if process.poll() is not None:
            return False
        if responds(url):
            return True
        waiting(waited)
        time.sleep(_POLL_S)
    return False
