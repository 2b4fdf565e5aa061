"""Programs of ours, or Python's, as processes of their own.

``python -m`` looks for modules in the working directory before anything else. People
run these verbs within a clone, and a clone may hold a ``json.py`` of its own: nothing
of it is to be run merely because of where somebody stands.
"""

from __future__ import annotations

import sys

# With -c it is the empty name that stands for the working directory.
_START = (
    "import sys; sys.path[:] = [place for place in sys.path if place]; "
    "import runpy; name = sys.argv.pop(1); "
    "runpy.run_module(name, run_name='__main__', alter_sys=True)"
)


def module(name: str, *arguments: str) -> list[str]:
    """The command that runs a module as ``python -m`` does, but from its real place."""
    return [sys.executable, "-c", _START, name, *arguments]
