"""``git am -3`` of a series on many commits, which the benchmarks compare with."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from overlaykit.core import git


def am(folder: Path, mail: Path, commits: Iterable[str], who: Mapping[str, str]) -> int:
    """Run it on every commit; returns how many take the whole series."""
    landed = 0
    for commit in commits:
        git.run(folder, "checkout", "-q", "--force", "--detach", commit)
        done = git.run(folder, "am", "-q", "-3", str(mail), env=who, ok=(0, 1, 128))
        if done.returncode:
            git.run(folder, "am", "--abort", env=who)
        landed += done.returncode == 0
    return landed
