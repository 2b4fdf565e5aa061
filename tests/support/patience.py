"""Waiting for an event in tests, with a deadline that no working machine reaches.

No test may depend on the speed of the machine. The deadline only ends a test that
hangs, so it is ten times what the slowest step takes on a machine with seven times
more work than cores.
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
