"""Compares an installed package with its release, file by file.

The two arms differ in the series alone if the baseline arm equals the packages and the
patched arm differs from them in the files of the series only. Each arm can therefore be
checked without the other.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from overlaykit.core.errors import EnvironmentFailure
from overlaykit.series.carried import Carried
from overlaykit.trees.members import members, read

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class InstalledTarget:
    """A target in site-packages, and the wheel it was installed from."""

    carried: Carried
    site: Path
    wheel: Path

    def expected(self) -> tuple[str, ...]:
        """The files that the series changes, as paths in site-packages."""
        inside = map(self.carried.target.site_layout().inside, self.carried.paths)
        return tuple(sorted(path for path in inside if path is not None))


def changed_files(one: InstalledTarget, progress: Progress) -> tuple[str, ...]:
    """Files that were changed, deleted or added since the release.

    Ignores metadata, which records who installed the package and how.
    """
    found: set[str] = set()
    try:
        with zipfile.ZipFile(one.wheel) as archive:
            layout = one.carried.target.site_layout()
            found_in = members(archive, one.wheel.name, layout.outside)
            files = sorted(m for m in found_in if ".dist-info/" not in m)
            what = f"comparing {one.carried.target.dist.name}"
            for number, name in enumerate(files, 1):
                data = read(archive, found_in[name], one.wheel.name)
                if _read(one.site / name) != data:
                    found.add(name)
                progress(what, number, len(files))
        found |= set(_files(one.site, one.carried.target.package)) - set(found_in)
    except (OSError, zipfile.BadZipFile) as error:
        what = f"cannot compare with {one.wheel.name}: {error}"
        raise EnvironmentFailure(what) from error
    return tuple(sorted(found))


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
