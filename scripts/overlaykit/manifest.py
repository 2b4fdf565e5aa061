"""``overlay.toml``: what is carried, onto which upstream release."""

from __future__ import annotations

from pathlib import Path

import msgspec

from overlaykit.errors import Finding, InputError
from overlaykit.trees import Layout

MANIFEST = "overlay.toml"


class Dist(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A released distribution whose wheel holds the target's sources."""

    name: str
    version: str
    # Wheels built for one Python or platform are fetched for that one, whatever runs
    # here: they are read as sources and never installed.
    python: str | None = None
    platform: str | None = None


class Target(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An upstream repository that the overlay changes.

    ``package`` is the importable package; ``package_root`` where the repository holds
    it.
    """

    repository: str
    dist: Dist
    package: str
    package_root: str
    tag: str | None = None
    image: str | None = None

    def site_layout(self) -> Layout:
        """Where a wheel, an unpacked sdist or site-packages holds the package."""
        return Layout(((f"{self.package_root}/", f"{self.package}/"),))

    def package_layout(self) -> Layout:
        """Where the installed package's own directory holds its files."""
        return Layout(((f"{self.package_root}/", ""),))


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole of ``overlay.toml``."""

    name: str
    targets: dict[str, Target]


def load_manifest(root: Path) -> Manifest:
    """Read ``overlay.toml`` of an overlay. Raises InputError where it is wrong."""
    path = root / MANIFEST
    try:
        return msgspec.toml.decode(path.read_bytes(), type=Manifest)
    except FileNotFoundError:
        raise InputError(f"{path} does not exist: not an overlay") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        step = "correct it; README says what it holds"
        finding = Finding(str(error), path=MANIFEST, next_step=step)
        raise InputError(f"{path} is not a manifest", (finding,)) from error
