"""A worker does not import PyTorch's compiler before something compiles."""

from __future__ import annotations

import subprocess
import sys

from conftest import ROOT
from support.patience import PATIENCE_S

PROGRAM = """
import sys
import torch
from xscale.numeric import compiler
from xscale.numeric.watch import Watch

compiler.postpone()

@torch.compiler.assume_constant_result
def two():
    return 2

def double(x):
    return x * two()

with Watch("/nowhere") as watch:
    torch.ones(2) + 1
assert "torch._dynamo" not in sys.modules

graphs = []
def keep(graph, _):
    graphs.append(str(graph.code))
    return graph.forward

got = torch.compile(double, fullgraph=True, backend=keep)(torch.ones(2))
assert "torch._dynamo" in sys.modules
assert got.tolist() == [2.0, 2.0]
[code] = graphs
assert "two" not in code and "2" in code, code
with watch:
    assert (torch.ones(2) + 1).tolist() == [2.0, 2.0]
"""


def test_the_import_waits_for_the_first_compilation(kernels: None) -> None:
    """And a function that is marked before it is a constant in the graph."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=ROOT / "scripts", capture_output=True, text=True, timeout=PATIENCE_S,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
