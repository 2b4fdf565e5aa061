"""The census: who makes and who reads an activation scale, and in which state.

``calls`` finds the kernels, ``modules`` and ``values`` know what names stand for,
``interpreter`` runs one path of a function and ``flow`` all of them, ``callers`` goes
on into the functions that it returns to, ``judge`` turns what they say into a state,
``liveness`` and ``layers`` tell whether it can run, ``rows`` puts it all together.
"""

from xscale.census.findings import Problem, check_adopted, problems
from xscale.census.liveness import NEVER_RUNS
from xscale.census.rows import Census, SiteRow, take_census

__all__ = [
    "NEVER_RUNS",
    "Census",
    "Problem",
    "SiteRow",
    "check_adopted",
    "problems",
    "take_census",
]
