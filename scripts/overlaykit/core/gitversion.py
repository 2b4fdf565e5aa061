"""Which git is installed, and whether it is new enough; git is asked once.

An older git would not fail: it would read the user's configuration although it was
told not to (``GIT_CONFIG_COUNT`` is of git 2.31, ``GIT_CONFIG_GLOBAL`` of 2.32), or
merge by other rules (the ort strategy is the default as of 2.34).
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
"""Since when ``git merge-tree --write-tree`` merges without a work tree."""


def version() -> Version:
    """That of the git on PATH. Raises EnvironmentFailure where there is none."""
    return parsed(_version_output(os.environ.get("PATH")))


def description() -> str:
    """The version in a few words, and whether it will do."""
    try:
        output = _version_output(os.environ.get("PATH"))
        require(output)
    except EnvironmentFailure as error:
        return error.message
    return output.removeprefix("git version ")


def check() -> None:
    """Raise EnvironmentFailure where git is older than what this project is made for.

    Called before git is run for anything else, so nothing has been written by then.
    """
    require(_version_output(os.environ.get("PATH")))


def require(output: str) -> None:
    """See :func:`check`; ``output`` is the answer of ``git version``."""
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
    """``git version 2.39.5 (Apple Git-154)`` as (2, 39, 5). A vendor's own words have
    no place in it; where there is no number it is older than all others."""
    found = re.match(r"git version (\d+(?:\.\d+)*)", output)
    return tuple(map(int, found[1].split("."))) if found else ()


@lru_cache
def _version_output(path: str | None) -> str:
    """``path`` is what the answer depends on."""
    try:
        done = subprocess.run(
            ["git", "version"], capture_output=True, check=False,
            stdin=subprocess.DEVNULL, env={**os.environ, "LC_ALL": "C"},
        )  # fmt: skip
    except OSError as error:
        raise not_started("git", error) from error
    return done.stdout.decode(errors="replace").strip() or "git that tells no version"


def _dotted(version: Version) -> str:
    return ".".join(map(str, version))
