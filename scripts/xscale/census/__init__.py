"""The census: who makes and who reads an activation scale, and in which state.

``calls`` finds the kernels, ``modules`` and ``values`` know what names stand for,
``interpreter`` runs one path of a function and ``flow`` all of them, ``callers`` goes
on into the functions that it returns to, ``judge`` turns what they say into a state,
``liveness`` and ``layers`` tell whether it can run, ``rows`` puts it all together.
"""

from xscale.census.findings import check_adopted
from xscale.census.rows import Census, SiteRow, take_census

__all__ = ["Census", "SiteRow", "check_adopted", "take_census"]
