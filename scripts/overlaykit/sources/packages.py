"""Upstream packages: fetched with pip, checked by digest.

The user's pip configuration decides where packages come from (index, mirror, proxy,
certificates). The lock decides what they must contain.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from overlaykit.core.errors import EnvironmentFailure, Finding, InputError, not_started
from overlaykit.core.versions import release_of, same_release
from overlaykit.series.digests import refuse_changed
from overlaykit.series.lock import LockedDist
from overlaykit.series.manifest import Dist, Target
from overlaykit.trees.tree import WheelTree

Progress = Callable[[str, int, int], None]


def cache_folder(root: Path) -> Path:
    """The folder of fetched packages."""
    return root / "build" / "cache"


def cached(root: Path, target: Target, locked: LockedDist) -> WheelTree | None:
    """A locked release from the cache; None if it is absent or different."""
    wheel = cache_folder(root) / locked.filename
    if not wheel.is_file() or describe(wheel).sha256 != locked.sha256:
        return None
    return wheel_tree(wheel, target)


def fetch(root: Path, target: Target, locked: LockedDist | None) -> Path:
    """The target's wheel, from the cache or from the package index.

    Raises EnvironmentFailure if it was not found, and InputError if it does not match
    the lock or another record of its release; such a file is not kept.
    """
    with _cache_errors(target):
        if locked is not None:
            _check_release(target.package_dist, locked.filename)
            place = cache_folder(root) / locked.filename
            if place.exists():
                refuse_changed(root, check_digest(place, locked))
                return place
        with downloaded(root, target) as wheel:
            found = describe(wheel) if locked is None else check_digest(wheel, locked)
            refuse_changed(root, found)
            return keep(root, wheel)


def wheel_tree(wheel: Path, target: Target) -> WheelTree:
    """A target's wheel as a tree."""
    return WheelTree(wheel, target.site_layout())


@contextmanager
def downloaded(root: Path, target: Target) -> Iterator[Path]:
    """Download the release from the index; the file is deleted unless kept.

    This does not check recorded digests. :func:`fetch` does, and so does the caller
    that accepts a different package of a known version.
    """
    cache = cache_folder(root)
    with _cache_errors(target):
        cache.mkdir(parents=True, exist_ok=True)
        folder = tempfile.TemporaryDirectory(dir=cache, ignore_cleanup_errors=True)
    with folder as scratch:
        wheel = _download(target.package_dist, Path(scratch))
        _check_release(target.package_dist, wheel.name)
        # Check the members before the file is kept or its digest is recorded.
        wheel_tree(wheel, target)
        yield wheel


def keep(root: Path, wheel: Path) -> Path:
    """Put a downloaded wheel into the cache."""
    place = cache_folder(root) / wheel.name
    os.replace(wheel, place)
    return place


@contextmanager
def _cache_errors(target: Target) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise EnvironmentFailure(
            f"{target.release} could not be saved: {error}",
            (
                Finding(
                    "cannot be written",
                    path=str(error.filename or "build/cache"),
                    next_step="free some space or permit writing, then run it again",
                ),
            ),
        ) from error


def _check_release(dist: Dist, filename: str) -> None:
    """Raises InputError if the wheel's name belongs to another release."""
    if same_release(*release_of(filename)) != same_release(dist.name, dist.version):
        finding = Finding(
            "is a package of another release",
            path=filename,
            expected=f"a wheel of {dist.name} {dist.version}",
            next_step="restore overlay.lock and releases.lock from version control; "
            "if they are unchanged, check what the package index serves",
        )
        message = f"{filename} is not a package of {dist.name} {dist.version}"
        raise InputError(message, (finding,))


def describe(wheel: Path) -> LockedDist:
    """The lock's record of a wheel."""
    with wheel.open("rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
    return LockedDist(wheel.name, digest.hexdigest(), wheel.stat().st_size)


def check_digest(wheel: Path, locked: LockedDist) -> LockedDist:
    """Describe a wheel. If it is not the locked one, delete it and raise InputError."""
    found = describe(wheel)
    if found.sha256 == locked.sha256:
        return found
    wheel.unlink()
    raise InputError(
        f"{wheel.name} does not match the recorded package",
        (
            Finding(
                "hash mismatch; the file was removed",
                path=wheel.name,
                expected=f"sha256 {locked.sha256} ({locked.size} bytes)",
                found=f"sha256 {found.sha256} ({found.size} bytes)",
                next_step="run it again; if it fails again, the package index serves "
                "a different file from the reviewed one: find out why",
            ),
        ),
    )


def pip_command(dist: Dist, *verb: str) -> list[str]:
    """A pip command for wheels of the manifest's Python and platform."""
    command = [sys.executable, "-m", "pip", *verb]
    command += ["--only-binary=:all:", "--disable-pip-version-check"]
    if dist.platform:
        command += ["--platform", dist.platform, "--implementation", "cp"]
    if dist.python:
        command += ["--python-version", dist.python]
    return command


def _download(dist: Dist, folder: Path) -> Path:
    command = pip_command(dist, "download", "--no-deps", "--dest", ".")
    command.append(f"{dist.name}=={dist.version}")
    if not sys.stderr.isatty():
        command.append("--quiet")
        print(f"fetching {dist.name} {dist.version}", file=sys.stderr, flush=True)
    try:
        done = subprocess.run(command, cwd=folder, stdout=sys.stderr, check=False)
    except OSError as error:
        raise not_started("pip", error) from error
    wheels = list(folder.glob("*.whl"))
    if done.returncode or len(wheels) != 1:
        raise EnvironmentFailure(
            f"{dist.name} {dist.version} could not be fetched "
            f"(pip exited with {done.returncode})",
            (
                Finding(
                    "the package was not downloaded",
                    next_step="check the network and pip's index settings "
                    "(pip config list), then run it again",
                ),
            ),
        )
    return wheels[0]
