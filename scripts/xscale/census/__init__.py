"""The census: which calls make and read an activation scale, and in which state.

``calls`` finds the kernels. ``modules`` and ``values`` know what names stand for.
``evaluator`` runs statements on one path, ``interpreter`` follows a scale on it, and
``flow`` runs all paths; ``path_records`` holds what a path records, ``recall`` what it
takes over from the path before, and ``shared`` what holds for several trees.
``callers`` follows a scale into the functions that it returns to. ``judge`` derives the
state, ``pairing`` finds the consumer, ``rows`` combines the results, and ``kept`` keeps
them by content. Whether a call
ever runs is not read from the source: see :mod:`xscale.liveness`.
"""

from xscale.census.findings import Problem, check_adopted, problems
from xscale.census.kept import kept_census
from xscale.census.rows import Census, SiteRow, take_census

__all__ = [
    "Census",
    "Problem",
    "SiteRow",
    "check_adopted",
    "kept_census",
    "problems",
    "take_census",
]
