"""Running Python modules as separate processes, and modules that may be missing.

``python -m`` searches the working directory for modules first. Users run these verbs
inside clones, and a clone may contain a ``json.py``: it must not run because of the
working directory.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from overlaykit.core.errors import EnvironmentFailure, Finding

_SCRIPTS = Path(__file__).resolve().parents[2]

# With -c, the empty entry of sys.path is the working directory.
_START = (
    "import sys; sys.path[:] = [place for place in sys.path if place]; "
    "import runpy; name = sys.argv.pop(1); "
    "runpy.run_module(name, run_name='__main__', alter_sys=True)"
)


def module_command(name: str, *arguments: str) -> list[str]:
    """The command that runs a module like ``python -m``, but not from the working
    directory."""
    return [sys.executable, "-c", _START, name, *arguments]


def module_environment() -> dict[str, str]:
    """The environment of such a process: it finds the packages here and writes no
    bytecode. PyTorch itself may be on PYTHONPATH, so the caller's entries stay."""
    path = os.pathsep.join(filter(None, (str(_SCRIPTS), os.environ.get("PYTHONPATH"))))
    return os.environ | {"PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"}


@contextmanager
def needs(group: str) -> Iterator[None]:
    """For imports of a group of packages. Raises EnvironmentFailure if one is
    missing."""
    try:
        yield
    except ImportError as error:
        finding = Finding(str(error), next_step=f"pip install --group {group}")
        raise EnvironmentFailure("a package is missing", (finding,)) from error
