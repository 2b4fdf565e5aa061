"""Probes the layouts of many AITERs with PyTorch and Triton imported once.

Each probe is a fork of a process that has both, with everything else of its own, as
:mod:`xscale.numeric.layout_probe` is a process of its own.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path

import msgspec

from overlaykit.core.python import module_command
from overlaykit.trees.tree import Tree
from xscale.numeric import layout_probe
from xscale.numeric.device import worker_environment
from xscale.numeric.layout import ProducerLayout
from xscale.numeric.sources import aiter_sources


def layouts_of(*trees: Tree) -> list[tuple[ProducerLayout, ...]]:
    """What both producers of each tree return, on the CPU."""
    environ = worker_environment("cpu")
    tests = str(Path(__file__).resolve().parents[1])
    done = subprocess.run(
        module_command("support.layouts"),
        env=environ | {"PYTHONPATH": os.pathsep.join((tests, environ["PYTHONPATH"]))},
        input=pickle.dumps([aiter_sources(tree) for tree in trees]),
        capture_output=True,
        check=True,
    )
    kind = tuple[ProducerLayout, ...]
    lines = done.stdout.splitlines()
    return [msgspec.json.decode(line, type=kind) for line in lines]


def _main() -> None:
    import torch  # noqa: F401
    import triton  # noqa: F401

    for sources in pickle.load(sys.stdin.buffer):
        pid = os.fork()
        if pid == 0:
            _answer(sources)
        if os.waitpid(pid, 0)[1]:
            sys.exit("a probe failed")


def _answer(sources: object) -> None:
    """In the fork: one line."""
    code = 1
    try:
        out = os.dup(1)
        os.dup2(2, 1)
        found = layout_probe._probe_all(sources, "cpu")  # type: ignore[arg-type]
        os.write(out, msgspec.json.encode(found) + b"\n")
        code = 0
    finally:
        os._exit(code)


if __name__ == "__main__":
    _main()
