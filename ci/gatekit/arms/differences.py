"""Compares an installed package with its release, file by file.

The two arms differ in the series alone if the baseline arm equals the packages and the
patched arm differs from them in the files of the series only. Each arm can therefore be
checked without the other.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from overlaykit.core.errors import EnvironmentFailure
from overlaykit.series.carried import Carried
from overlaykit.series.lock import TreeWithModes
from overlaykit.trees.members import members, read

Progress = Callable[[str, int, int], None]
_Read = Callable[[str], bytes | None]


@dataclass(frozen=True)
class InstalledTarget:
    """A target in site-packages, and what it was installed from: a wheel, or the tree
    of a commit."""

    carried: Carried
    site: Path
    base: Path | TreeWithModes

    def expected(self) -> tuple[str, ...]:
        """The files that the series changes, as paths in site-packages."""
        inside = map(self.carried.target.site_layout().inside, self.carried.paths)
        return tuple(sorted(path for path in inside if path is not None))


def changed_files(one: InstalledTarget, progress: Progress) -> tuple[str, ...]:
    """Files that were changed, deleted or added since the base.

    Ignores metadata, which records who installed the package and how.
    """
    found: set[str] = set()
    there: set[str] = set()
    release = one.carried.target.release
    try:
        with _opened(one) as (files, read_base):
            for number, name in enumerate(files, 1):
                there.add(name)
                if _read(one.site / name) != read_base(name):
                    found.add(name)
                progress(f"comparing {release}", number, len(files))
        found |= set(_files(one.site, one.carried.target.package)) - there
    except (OSError, zipfile.BadZipFile) as error:
        what = f"cannot compare with {release}: {error}"
        raise EnvironmentFailure(what) from error
    return tuple(sorted(found))


@contextmanager
def _opened(one: InstalledTarget) -> Iterator[tuple[list[str], _Read]]:
    """The base's files by their path in site-packages, and how to read one."""
    layout = one.carried.target.site_layout()
    if isinstance(base := one.base, Path):
        with zipfile.ZipFile(base) as archive:
            infos = members(archive, base.name, layout.outside)
            files = sorted(m for m in infos if ".dist-info/" not in m)
            yield files, lambda name: read(archive, infos[name], base.name)
        return
    paths = {layout.inside(path) or path: path for path in base.paths()}
    yield sorted(paths), lambda name: base.read(paths[name])


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None


def _files(site: Path, package: str) -> Iterator[str]:
    """The package's files without bytecode, which Python makes from the sources."""
    for path in (site / package).rglob("*"):
        if path.is_file() and "__pycache__" not in path.parts:
            yield path.relative_to(site).as_posix()
