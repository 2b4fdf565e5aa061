"""Copies of this overlay with few bases of SGLang, where they differ in nothing for
what is tested: each verb that makes the lock again reads every base's package."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from overlaykit.series.lock import LOCK, manifest_digest
from overlaykit.series.manifest import MANIFEST, parse_manifest
from overlaykit.series.tables import without_table
from support.bases import BASES
from support.forks import forked


def keep_first(copy: Path, number: int = 1) -> None:
    """Remove all bases of SGLang but the first ones from a copy, as if there never were
    any."""
    without_others(copy, *BASES[:number], "aiter")


def without_others(copy: Path, *kept: str) -> None:
    """Leave only these targets in a copy, whose lock is made again."""
    manifest = copy / MANIFEST
    # Keep the packages' digests in the lock, so that they are not fetched again.
    lock = json.loads((copy / LOCK).read_text(encoding="utf-8"))
    for name in parse_manifest(manifest.read_bytes()).targets:
        if name in kept:
            continue
        manifest.write_bytes(without_table(manifest.read_bytes(), name)[0])
        for folder in ("patches", "overlay"):
            shutil.rmtree(copy / folder / name, ignore_errors=True)
        del lock["targets"][name]
    lock["manifest"] = manifest_digest(copy)
    (copy / LOCK).write_text(json.dumps(lock), encoding="utf-8")
    lock_again(copy)


def lock_again(copy: Path) -> None:
    """Make the lock of a copy again, as a maintainer does after an edit."""
    forked(copy / "scripts" / "lock.py", ()).check_returncode()


def link_packages(source: str, to: str) -> str:
    """A copy function: packages are links, other files are copied."""
    if source.endswith(".whl"):
        Path(to).hardlink_to(source)
        return to
    return str(shutil.copy2(source, to))
