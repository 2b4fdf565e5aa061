"""Is every activation scale right where a GEMM reads it? Answered by running things.

The tree's own functions (producers, gather, consumer) run on AITER's own Triton
kernels; only what lies between is stood in for. :func:`run` is the way in:

    outcomes = run(tree, aiter, reduced_matrix())
    wrong = [finding for outcome in outcomes for finding in outcome.findings]

A reading is judged by pointers and bits and never by names: what the GEMM sees
through its own addressing must be what the kernel computed for that very fp8 tensor.
Importing this package needs neither PyTorch nor Triton; running needs both, in a
worker process (see ``client``), because Triton decides between its interpreter and a
GPU when it is first imported.

``cases`` is the matrix, ``sources`` finds the code in a tree, ``stubs`` and ``island``
load it, ``producers`` and ``gemms`` are AITER's side, ``doubles`` and ``drivers`` run
a function between them, ``judge`` and ``engine`` make the verdicts.
"""

from xscale.numeric.cases import (
    SHAPES,
    Case,
    Chain,
    Platform,
    Shape,
    Switch,
    Variant,
    about,
    full_matrix,
    reduced_matrix,
)
from xscale.numeric.client import Worker, run
from xscale.numeric.pool import Pool
from xscale.numeric.results import CaseResult, Reading
from xscale.numeric.selftest import ModuleCase, module_cases
from xscale.numeric.summary import (
    ChainSummary,
    SiteSummary,
    chains_of,
    findings_of,
    summarize,
)

__all__ = [
    "SHAPES",
    "Case",
    "CaseResult",
    "Chain",
    "ChainSummary",
    "ModuleCase",
    "Platform",
    "Pool",
    "Reading",
    "Shape",
    "SiteSummary",
    "Switch",
    "Variant",
    "Worker",
    "about",
    "chains_of",
    "findings_of",
    "full_matrix",
    "module_cases",
    "reduced_matrix",
    "run",
    "summarize",
]
