"""Everything that the answer of a worker process depends on, by name.

A kept answer is silently wrong if one input is missing here. So each is named: what the
process gets (the job), what it runs (this program, Python, the installed packages, the
machine), and what it may look at (the environment). Where an input cannot be named,
because a package is not one that an installer put there, nothing is kept.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import site
import sys
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from overlaykit.core.digests import of_program
from xscale.numeric.client import Job
from xscale.numeric.device import read_variables
from xscale.numeric.sources import Sources

_PROGRAM = ("overlaykit", "xscale")
_RUNTIME = frozenset({"torch", "triton", "numpy", "jax", "packaging", "msgspec"})
"""What the worker itself imports, or has a stand-in for if it is not installed."""
_DEVICES = re.compile(r"kfd|nvidia.*|accel.*")
_ABOUT_DEVICES = (
    "/proc/driver/nvidia/version",
    "/sys/module/amdgpu/version",
    "/opt/rocm/.info/version",
)
_UNMANAGED = frozenset({"sglang", "aiter", "sgl_kernel"})
"""The worker never imports these from where they are installed."""


def inputs_of(job: Job, device: str) -> dict[str, str] | None:
    """The inputs of a job's answers. None if one of them cannot be named."""
    names = (_RUNTIME | job.tree.foreign | job.aiter.foreign) - _UNMANAGED
    around = surroundings(device)
    if around is None or _outside(names):
        return None
    base = {} if job.pristine is None else {"base": _sources(job.pristine)}
    return {
        **around,
        **base,
        "tree": _sources(job.tree),
        "aiter": _sources(job.aiter),
        "cases": repr(job.cases),
    }


def surroundings(device: str) -> dict[str, str] | None:
    """The inputs of every job's answers: all but what the job brings along."""
    packages = _packages(os.environ.get("PYTHONPATH", ""))
    if packages is None or _other_packages():
        return None
    return {
        "program": of_program(*_PROGRAM),
        "python": f"{sys.implementation.name} {sys.version}",
        "packages": packages,
        "machine": _machine(),
        "device": device,
        "environment": repr(sorted(read_variables(os.environ).items())),
    }


def _sources(sources: Sources) -> str:
    """All of the sources except the tree's name; the order counts."""
    total = hashlib.sha256()
    for name, (path, data) in sources.modules.items():
        total.update(f"{name}\0{path}\0{len(data)}\0".encode())
        total.update(data)
    places = sorted((name, p.module, p.name) for name, p in sources.places.items())
    total.update(repr((places, sorted(sources.foreign))).encode())
    return total.hexdigest()


@cache
def _machine() -> str:
    """The processor, and the devices that a package may find."""
    total = hashlib.sha256(platform.machine().encode())
    try:
        with Path("/proc/cpuinfo").open("rb") as file:
            # The first processor's.
            total.update(b"".join(sorted(_abilities(file.read(1 << 14)))))
        names = (device.name for device in Path("/dev").iterdir())
        devices = sorted(filter(_DEVICES.fullmatch, names))
        total.update(repr(devices).encode())
    except OSError as error:
        total.update(repr(error.errno).encode())
    for about in map(Path, _ABOUT_DEVICES):
        total.update(about.read_bytes() if about.is_file() else b"\0")
    return total.hexdigest()


def _abilities(about: bytes) -> set[bytes]:
    wanted = (b"flags", b"Features", b"model name", b"CPU part")
    return {line for line in about.splitlines() if line.startswith(wanted)}


def _other_packages() -> bool:
    """Whether a worker, which gets none of this process's options, may find others."""
    user = sys.flags.no_user_site and "PYTHONNOUSERSITE" not in os.environ
    return bool(sys.flags.isolated or sys.flags.ignore_environment or user)


@cache
def _places() -> list[Path]:
    """The folders that packages are installed in."""
    found = [*site.getsitepackages()]
    if site.ENABLE_USER_SITE:
        found.append(site.getusersitepackages())
    return [place for place in map(Path, found) if place.is_dir()]


@cache
def _packages(path: str) -> str | None:
    """The installed packages: names in their folders and in those of PYTHONPATH, and
    what each one's installer recorded, which has the digest of every file. None if a
    folder cannot be read."""
    total = hashlib.sha256()
    try:
        for place in [*_places(), *_added_places(path)]:
            names = sorted(one.name for one in place.iterdir())
            total.update(repr((str(place), names)).encode(errors="backslashreplace"))
        for place in _places():
            for file in [*_links(place), *_finders(place)]:
                total.update(file.read_bytes())
            total.update(_records(place))
    except OSError:
        return None
    return total.hexdigest()


@cache
def _records(place: Path) -> bytes:
    """All records of a folder of packages, one file a line."""
    found = sorted(place.glob("*.dist-info/RECORD"))
    return b"\n" + b"\n".join(record.read_bytes() for record in found)


def _links(place: Path) -> list[Path]:
    return sorted(place.glob("*.pth"))


def _finders(place: Path) -> list[Path]:
    """Modules that find packages which are installed as they are (editable)."""
    return sorted(place.glob("__editable__*.py"))


def _added_places(path: str) -> list[Path]:
    """Folders on PYTHONPATH, and those that a ``.pth`` file adds."""
    found = [Path(place) for place in path.split(os.pathsep) if place]
    for folder in _places():
        for file in _links(folder):
            lines = file.read_text(errors="replace").splitlines()
            found += [folder / line for line in lines if line.strip()]
    return [place for place in found if place.is_dir()]


def _outside(names: Iterable[str]) -> bool:
    """Whether one of the packages is, or may be, where no installer recorded its
    files."""
    names = set(names) - sys.stdlib_module_names
    for folder in _places():
        if any(_has(folder, name) and not _is_recorded(folder, name) for name in names):
            return True
        for finder in _finders(folder):
            text = finder.read_text(errors="replace")
            if any(
                f"{quote}{name}{quote}" in text for name in names for quote in "'\""
            ):
                return True
    places = _added_places(os.environ.get("PYTHONPATH", ""))
    return any(_has(place, name) for place in places for name in names)


def _has(folder: Path, name: str) -> bool:
    return (folder / name).is_dir() or any(folder.glob(f"{name}.*"))


def _is_recorded(folder: Path, name: str) -> bool:
    return any(f"\n{name}{end}".encode() in _records(folder) for end in "/.")
