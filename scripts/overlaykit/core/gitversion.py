"""The installed git's version, and whether it is new enough; read once.

An older git would not fail. It would read the user's configuration, because it ignores
the variables that prevent this (``GIT_CONFIG_COUNT`` needs git 2.31,
``GIT_CONFIG_GLOBAL`` 2.32), or merge by other rules (the ort strategy is the default
since 2.34).
"""

from __future__ import annotations

import os
import re
import subprocess
from functools import lru_cache

from overlaykit.core.errors import EnvironmentFailure, Finding, not_started

Version = tuple[int, ...]

OLDEST: Version = (2, 34)
MERGE_TREE: Version = (2, 38)
"""The first version whose ``git merge-tree`` merges without a work tree."""


def version() -> Version:
    """The version of the git on PATH. Raises EnvironmentFailure if there is none."""
    return parsed(_version_output(os.environ.get("PATH")))


def description() -> str:
    """The version as text, or the error if git is missing or too old."""
    try:
        output = _version_output(os.environ.get("PATH"))
        require(output)
    except EnvironmentFailure as error:
        return error.message
    return output.removeprefix("git version ")


def check() -> None:
    """Raise EnvironmentFailure if git is older than :data:`OLDEST`.

    This is called before git runs anything else, so nothing has been written yet.
    """
    require(_version_output(os.environ.get("PATH")))


def require(output: str) -> None:
    """See :func:`check`; ``output`` is the output of ``git version``."""
    if parsed(output) >= OLDEST:
        return
    finding = Finding(
        "git is too old",
        expected=f"git {_dotted(OLDEST)} or newer",
        found=output,
        next_step=f"install git {_dotted(OLDEST)} or newer, and have it come first "
        "on PATH",
    )
    message = f"git {_dotted(OLDEST)} or newer is needed, and this is {output}"
    raise EnvironmentFailure(message, (finding,))


def parsed(output: str) -> Version:
    """``git version 2.39.5 (Apple Git-154)`` as (2, 39, 5). A vendor's suffix is
    ignored. Output without a number counts as older than every version."""
    found = re.match(r"git version (\d+(?:\.\d+)*)", output)
    return tuple(map(int, found[1].split("."))) if found else ()


@lru_cache
def _version_output(path: str | None) -> str:
    """The output depends on PATH alone, so ``path`` is the cache key."""
    try:
        done = subprocess.run(
            ["git", "version"], capture_output=True, check=False,
            stdin=subprocess.DEVNULL, env={**os.environ, "LC_ALL": "C"},
        )  # fmt: skip
    except OSError as error:
        raise not_started("git", error) from error
    return done.stdout.decode(errors="replace").strip() or "git without a version"


def _dotted(version: Version) -> str:
    return ".".join(map(str, version))
