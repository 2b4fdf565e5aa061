"""Checks that every activation scale is right where a GEMM reads it, by running the
code.

The tree's own functions (producers, gather, consumer) run on AITER's own Triton
kernels; stand-ins replace only the code in between. Start with :func:`run`:

    outcomes = run(tree, aiter, reduced_matrix())
    wrong = [finding for outcome in outcomes for finding in outcome.findings]

A reading is judged by pointers and bits, never by names: the values that the GEMM sees
through its own addressing must be those that the kernel computed for the same fp8
tensor. Importing this package needs neither PyTorch nor Triton. Running needs both, in
a worker process (see ``client``), because Triton chooses between its interpreter and a
GPU when it is first imported.

``cases`` defines the matrix. ``sources`` finds the code in a tree, ``stubs`` and
``island`` load it. ``producers`` and ``gemms`` are AITER's side; ``doubles`` and
``drivers`` run a function between them, with ``decoder_pass`` for the input's scale.
``watch`` records other operations on a scale. ``judge`` and ``handling`` compare the
records; ``engine`` runs and judges a case. ``layout`` and ``layout_probe`` determine an
AITER's layouts.
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
