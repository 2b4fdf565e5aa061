"""The engine of a carried patch series: trees, series, plans, landings, transactions.

It knows upstream sources as bytes and Python scopes, and nothing of what any one
series is for. Layers look down only: ``errors`` and ``objects`` at the bottom, then
``git`` and ``trees``, then ``patches``, ``series`` and ``scopes``, then ``manifest``
and ``lock``, then ``plan`` (with ``merge``), then ``transaction``; the verbs on top.
"""

import sys
from pathlib import Path

# Here, because whatever a verb imports first, this comes before it: a user whose
# Python lacks the one dependency is told what to do instead of shown a traceback.
try:
    import msgspec as _msgspec  # noqa: F401
except ModuleNotFoundError:
    print(
        f"msgspec is not installed for {sys.executable}: run {sys.executable} -m pip "
        f"install -r {Path(__file__).parents[2] / 'requirements.txt'}",
        file=sys.stderr,
    )
    sys.exit(5)
