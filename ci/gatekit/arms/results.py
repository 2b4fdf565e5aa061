"""The names of the two arms, and what a rebuild reports about the arm it made."""

from __future__ import annotations

import hashlib
from pathlib import Path

import msgspec

from overlaykit.cli import Result
from overlaykit.series.lock import LOCK

BASELINE, PATCHED = "baseline", "patched"
ARMS = (BASELINE, PATCHED)


class Environment(Result, frozen=True, kw_only=True):
    """An arm as a virtual environment.

    ``digests``: for each target, the git tree id of the files that the series covers.
    ``differs``: every file that differs from the packages: none in the baseline arm,
    the files of the series in the patched arm. ``series`` is the sha256 of the lock,
    which in turn has the sha256 of every patch and new file.
    """

    arm: str
    series: str
    python: str = ""
    packages: dict[str, str] = msgspec.field(default_factory=dict)
    digests: dict[str, str] = msgspec.field(default_factory=dict)
    differs: tuple[str, ...] = ()
    reinstalled: tuple[str, ...] = ()


class Image(Result, frozen=True, kw_only=True):
    """An arm as a container image. ``base`` is the image it was built from, by
    digest."""

    arm: str
    series: str
    image: str
    base: str = ""
    id: str = ""
    commands: tuple[str, ...] = ()


def series_of(arm: str, root: Path) -> str:
    """The digest of the series in this arm, or "none" for the baseline arm."""
    if arm == BASELINE:
        return "none"
    return hashlib.sha256((root / LOCK).read_bytes()).hexdigest()
