"""How an installed package differs from its release, file by file.

Two arms made from the same packages differ in the series alone if the one differs from
the packages in nothing, and the other in the series' files: a check that needs no
second arm, and holds for any pair.
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
class Installed:
    """A target in site-packages, and the wheel that it was installed from."""

    carried: Carried
    site: Path
    wheel: Path

    def expected(self) -> tuple[str, ...]:
        """What the series changes of it, as site-packages names it."""
        inside = map(self.carried.target.site_layout().inside, self.carried.paths)
        return tuple(sorted(path for path in inside if path is not None))


def differing(one: Installed, progress: Progress) -> tuple[str, ...]:
    """Files that are not as the release has them: changed, gone, or more.

    Metadata is left out: who installed a package, and how, is no part of it.
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
    """Compiled files are left out: Python makes them of what is compared."""
    for path in (site / package).rglob("*"):
        if path.is_file() and "__pycache__" not in path.parts:
            yield path.relative_to(site).as_posix()
