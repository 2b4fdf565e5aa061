"""Any release of a target: fetched once, and the same bytes from then on.

``releases.lock`` records each release's wheel by sha256
(:mod:`overlaykit.series.ledger`).
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec

from overlaykit.core.errors import EnvironmentFailure, Finding, InputError, not_started
from overlaykit.core.files import write_whole
from overlaykit.core.versions import is_final, order
from overlaykit.series.digests import recorded
from overlaykit.series.ledger import LEDGER, encode_ledger, ledger, with_release
from overlaykit.series.lock import LockedDist
from overlaykit.series.manifest import Dist, Target
from overlaykit.sources.packages import Progress, describe, fetch, pip_command
from overlaykit.trees.tree import WheelTree


@dataclass(frozen=True)
class Release:
    """A released version of a distribution, with its wheel from the ledger."""

    name: str
    version: str
    dist: LockedDist


def known(root: Path, name: str) -> tuple[Release, ...]:
    """The recorded releases of a distribution, oldest first; uses no index."""
    wheels = ledger(root).releases.get(name, {})
    return tuple(Release(name, v, wheels[v]) for v in sorted(wheels, key=order))


def listed(dist: Dist) -> tuple[str, ...]:
    """The final releases on the package index, oldest first.

    Raises EnvironmentFailure if there is no index, or it lists no release.
    """
    command = [*pip_command(dist, "index", "versions"), dist.name]
    try:
        # `python -m` looks for pip in the working directory first: use an empty one.
        with tempfile.TemporaryDirectory() as folder:
            done = subprocess.run(
                command, cwd=folder, capture_output=True, text=True, check=False
            )
    except OSError as error:
        raise not_started("pip", error) from error
    line = re.search(r"^Available versions: (.*)$", done.stdout, re.MULTILINE)
    if done.returncode or line is None:
        last_line = done.stderr.strip().rpartition("\n")[2]
        raise EnvironmentFailure(
            f"the package index lists no releases of {dist.name}",
            (
                Finding(
                    "no releases were found",
                    found=last_line or f"pip exited with {done.returncode}",
                    next_step="check the network and pip's index settings "
                    "(pip config list), then run it again",
                ),
            ),
        )
    finals = (v for v in line[1].split(", ") if re.fullmatch(r"[0-9.]+(\.post\d+)?", v))
    return tuple(sorted(finals, key=order))


def newer(root: Path, dist: Dist) -> tuple[str, ...]:
    """The index's releases that are newer than all recorded ones, oldest first."""
    newest = max((order(r.version) for r in known(root, dist.name)), default=None)
    return tuple(v for v in listed(dist) if newest is None or order(v) > newest)


def released(target: Target, version: str) -> Target:
    """The target, pinned to another release, without commit, image and tag."""
    dist = msgspec.structs.replace(target.package_dist, version=version)
    return msgspec.structs.replace(target, dist=dist, commit=None, tag=None, image=None)


def obtain(root: Path, target: Target, version: str) -> Path:
    """The release's wheel, from the cache or the index, checked against its record.

    Records a release on its first use. A recorded wheel in the cache needs no pip.
    Raises InputError for a version that does not exist or a wheel that does not match
    its record, and EnvironmentFailure if the wheel was not found.
    """
    dist = target.package_dist
    name = dist.name
    if version not in ledger(root).releases.get(name, {}) and is_final(version):
        _check_listed(root, dist, version)
    return _obtain(root, target, version)


def _check_listed(root: Path, dist: Dist, version: str) -> None:
    there = listed(dist)
    if version in there:
        return
    oldest = min([*(order(r.version) for r in known(root, dist.name)), order(version)])
    near = [v for v in there if order(v) >= oldest] or there[-1:]
    finding = Finding(
        "the release does not exist",
        expected=f"one of {', '.join(near)}",
        found=version,
        next_step="name one of these releases",
    )
    raise InputError(
        f"the package index does not have {dist.name} {version}", (finding,)
    )


def _obtain(root: Path, target: Target, version: str) -> Path:
    pinned = released(target, version)
    name = pinned.package_dist.name
    wheel = fetch(root, pinned, recorded(root, pinned.package_dist))
    if version not in ledger(root).releases.get(name, {}):
        _record(root, Release(name, version, describe(wheel)))
    return wheel


def release_tree(root: Path, target: Target, version: str) -> WheelTree:
    """The release's files, read from the wheel; see :func:`obtain`."""
    return WheelTree(obtain(root, target, version), target.site_layout())


def ladder(root: Path, target: Target, progress: Progress) -> Iterator[Release]:
    """Fetch and record every release on the index, from the oldest recorded one.

    Without a recorded release, begin with the pinned one.
    """
    dist = target.package_dist
    name, pinned = dist.name, dist.version
    recorded = [order(release.version) for release in known(root, name)]
    oldest = min(recorded, default=order(pinned))
    versions = [v for v in listed(dist) if order(v) >= oldest]
    for number, version in enumerate(versions, 1):
        _obtain(root, target, version)
        progress(f"releases of {name}", number, len(versions))
        yield Release(name, version, ledger(root).releases[name][version])


def _record(root: Path, release: Release) -> None:
    """Add one release to the ledger, in one atomic write."""
    made = with_release(ledger(root), release.name, release.version, release.dist)
    write_whole(root / LEDGER, encode_ledger(made))
