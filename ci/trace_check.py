#!/usr/bin/env python3
"""Check profiler traces: are the scale copies gone from every layer's attention?

With ``--baseline`` also: nothing but the baseline's copies is gone, and the time fell
by about the copies' time. A trace that would show this by accident is not evidence; its
verdict is invalid.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))

import overlaykit  # noqa: F401  (first: it handles failed imports)

# isort: split
from gatekit.traces.check_action import call
from gatekit.traces.options import EXAMPLES, options
from gatekit.traces.text import show
from overlaykit.cli import Verb, run

if __name__ == "__main__":
    run(
        Verb(
            "Check profiler traces of SGLang: are the scale copies gone from every "
            "layer's attention, and does the trace prove it? Prints pass (exit code "
            "0), fail (1), or invalid (4) if the trace cannot prove it either way.",
            EXAMPLES,
            options,
            call,
            show,
        )
    )
