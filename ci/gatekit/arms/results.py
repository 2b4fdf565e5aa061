"""What a rebuild says of the arm that it made."""

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

    ``digests``: per target the git tree id of the files that the series answers for.
    ``differs``: every file that is not as the packages have it; on the baseline none,
    on the patched arm those of the series. ``series`` is the sha256 of the lock, which
    names every patch and new file by its own.
    """

    arm: str
    series: str
    python: str = ""
    packages: dict[str, str] = msgspec.field(default_factory=dict)
    digests: dict[str, str] = msgspec.field(default_factory=dict)
    differs: tuple[str, ...] = ()
    reinstalled: tuple[str, ...] = ()


class Image(Result, frozen=True, kw_only=True):
    """An arm as a container image. ``base`` is what it was really built from."""

    arm: str
    series: str
    image: str
    base: str = ""
    id: str = ""
    commands: tuple[str, ...] = ()


def series_of(arm: str, root: Path) -> str:
    """The digest of everything that the series is, or that an arm has none of it."""
    if arm == BASELINE:
        return "none"
    return hashlib.sha256((root / LOCK).read_bytes()).hexdigest()
