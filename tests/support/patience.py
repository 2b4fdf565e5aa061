"""Waiting in tests: for an event, and far longer than any machine needs.

No test may depend on how fast the machine is. The one deadline here ends a test that
hangs; it says nothing about speed, so it is an order of magnitude above what the
slowest step takes on a machine with seven times more work than cores.
"""

from __future__ import annotations

import time
from collections.abc import Callable

PATIENCE_S = 1200


def wait_until(holds: Callable[[], bool]) -> None:
    """Return as soon as ``holds`` does. Fails after ``PATIENCE_S`` seconds."""
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline, f"still not so after {PATIENCE_S} s"
        time.sleep(0.02)
