"""Describes what the gate tests, by digests, and the machine it runs on."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from gatekit.report.schema import Subject
from gatekit.run.profile import Profile
from overlaykit.core.digests import of_files
from overlaykit.core.errors import OverlayError
from overlaykit.repository import clones
from overlaykit.series.lock import LOCK, load_lock
from overlaykit.series.manifest import MANIFEST, load_manifest

_SHOWN = ("msgspec", "torch", "triton", "numpy", "scipy", "sgl-eval", "xllamacpp")


def subject(root: Path, profile: Profile) -> Subject:
    """The digests of everything under test. Raises InputError if the lock cannot be
    read; a later stage checks whether the lock is current."""
    lock = load_lock(root)
    series = [root / MANIFEST, root / LOCK]
    for folder in ("patches", "overlay"):
        series += sorted(p for p in (root / folder).rglob("*") if p.is_file())
    code = [
        path
        for folder in ("scripts", "ci")
        for path in sorted((root / folder).rglob("*.py"))
        # The code of the reports does not change any result.
        if "report" not in path.parts
    ]
    code += sorted(p for p in (root / "ci" / "container").iterdir() if p.is_file())
    return Subject(
        overlay=load_manifest(root).name,
        series=of_files(root, series),
        code=of_files(root, code),
        commit=_commit(root),
        profile=profile.name,
        profile_sha256=profile.sha256,
        packages={
            name: one.dist.sha256 if one.dist else f"commit {one.commit}"
            for name, one in lock.targets.items()
        },
        image=profile.container.image if profile.container else "",
    )


def _commit(root: Path) -> str:
    """The commit of this repository, or "" if it is not a clone; says if files have
    uncommitted changes."""
    try:
        commit = clones.text(root, "rev-parse", "HEAD").strip()
        changed = clones.text(root, "status", "--porcelain").strip()
    except OverlayError:
        return ""
    return f"{commit}, with changes" if changed else commit


@cache
def machine() -> dict[str, str]:
    """What a reader needs to know about the machine of a measurement."""
    found = {
        "host": platform.node(),
        "system": f"{platform.system()} {platform.release()}, {platform.machine()}",
        "cores": str(os.cpu_count()),
        "memory": f"{_memory() >> 30} GiB",
    }
    return {**found, "GPUs": _gpus() or "none found"}


def _memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def versions() -> dict[str, str]:
    """The versions of Python and of the installed packages that affect results."""
    found = {"python": sys.version.split()[0]}
    for name in _SHOWN:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


@cache
def _gpus() -> str:
    """The GPUs' names from the vendor's tool. Cached: every stage needs them."""
    unknown = ""
    for command in (
        ("nvidia-smi", "--query-gpu=name", "--format=csv,noheader"),
        ("rocm-smi", "--showproductname", "--csv"),
    ):
        try:
            done = subprocess.run(
                command,
                capture_output=True,
                encoding="utf-8",
                errors="replace",
                check=True,
                timeout=30,
            )
        except FileNotFoundError:
            continue
        except (OSError, subprocess.SubprocessError) as error:
            # The tool exists but fails, so the GPUs are unknown rather than absent.
            unknown = f"not known: {error}"
            continue
        lines = [line.strip() for line in done.stdout.splitlines() if line.strip()]
        return "; ".join(lines)
    return unknown
