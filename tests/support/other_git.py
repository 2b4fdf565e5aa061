"""Other versions of git than the one on PATH, for tests.

``GIT_OLD`` names programs of other versions, separated by colons:
``GIT_OLD=/opt/git-2.34/bin/git make test``. Tests that need one are skipped without it.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from overlaykit.core import gitversion


def on_path(program: Path) -> str:
    """A PATH on which this git comes first."""
    return f"{program.parent}{os.pathsep}{os.environ['PATH']}"


def older_than(version: gitversion.Version) -> Path:
    """A git from ``GIT_OLD`` that is older than ``version`` and new enough for us."""
    for name in filter(None, os.environ.get("GIT_OLD", "").split(os.pathsep)):
        said = subprocess.run([name, "version"], capture_output=True, text=True)
        if gitversion.OLDEST <= gitversion.parsed(said.stdout) < version:
            return Path(name)
    wanted = ".".join(map(str, version))
    pytest.skip(f"GIT_OLD names no git older than {wanted}")


def too_old(folder: Path, version: str) -> Path:
    """A fake git that is too old: it prints its version, and logs every other call."""
    folder.mkdir()
    program = folder / "git"
    program.write_text(
        '#!/bin/sh\n[ "$*" = version ] && exec echo "git version '
        f'{version}"\necho "$*" >> "$0.asked"\nexit 129\n'
    )
    program.chmod(0o755)
    return program
