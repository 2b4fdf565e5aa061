"""``overlay.toml``: the targets of an overlay and the release each one pins."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec

from overlaykit.core.documents import from_toml
from overlaykit.core.errors import Finding, InputError
from overlaykit.core.paths import check_path
from overlaykit.trees.tree import Layout

MANIFEST = "overlay.toml"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9.!+_-]*")


class Dist(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A released distribution whose wheel holds the target's sources."""

    name: str
    version: str
    # Fetch a wheel built for a given Python or platform for that one, not for the one
    # that runs here: it is read as source and never installed.
    python: str | None = None
    platform: str | None = None


class Target(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One release of an upstream repository that the overlay changes.

    ``package`` is the importable package; ``package_root`` is its folder in the
    repository. Several targets may share one package: they are its bases, and each has
    its own series. ``overlay`` names the target whose new files this one shares, so
    that no file is kept twice.
    """

    repository: str
    dist: Dist
    package: str
    package_root: str
    tag: str | None = None
    image: str | None = None
    overlay: str | None = None

    @property
    def release(self) -> str:
        """The name of the base in messages."""
        return f"{self.dist.name} {self.dist.version}"

    def site_layout(self) -> Layout:
        """The package's place in a wheel, an unpacked sdist or site-packages."""
        return Layout(((f"{self.package_root}/", f"{self.package}/"),))

    def package_layout(self) -> Layout:
        """The place of the files in the installed package's own directory."""
        return Layout(((f"{self.package_root}/", ""),))


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The contents of ``overlay.toml``."""

    name: str
    targets: dict[str, Target]

    def bases(self, package: str) -> tuple[str, ...]:
        """The targets of one package, in manifest order."""
        return tuple(n for n, t in self.targets.items() if t.package == package)


def load_manifest(root: Path) -> Manifest:
    """Read ``overlay.toml``. Raises InputError if it is missing or invalid."""
    path = root / MANIFEST
    try:
        return parse_manifest(path.read_bytes())
    except FileNotFoundError:
        raise InputError(f"{path} does not exist: this is not an overlay") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        step = "correct it; the README describes its fields"
        finding = Finding(str(error), path=MANIFEST, next_step=step)
        raise InputError(
            f"{path} is not a valid manifest: {error}", (finding,)
        ) from error


def parse_manifest(data: bytes) -> Manifest:
    """Parse a manifest. Raises msgspec.DecodeError or InputError."""
    manifest = from_toml(data, Manifest)
    for name, target in manifest.targets.items():
        try:
            check_target_name(name)
        except InputError as error:
            raise _wrong(error.message, "rename the target") from None
        _check(name, target)
        if target.overlay is None:
            continue
        shared = manifest.targets.get(target.overlay)
        if shared is None or (shared.package, shared.overlay) != (target.package, None):
            what = f"{name} cannot share the new files of {target.overlay!r}"
            step = f"name a target of {target.package} with its own new files"
            raise _wrong(what, step)
    return manifest


def check_target_name(name: str) -> None:
    """Raises InputError unless the name can be a folder name."""
    if not _NAME.fullmatch(name):
        raise InputError(f"{name!r} cannot be a folder name")


def _check(name: str, target: Target) -> None:
    """Check the fields that become file paths or arguments of pip."""
    try:
        check_path(target.package_root)
    except InputError as error:
        step = "write the package's folder in the repository"
        raise _wrong(f"{name}: package_root: {error.message}", step) from None
    if not target.package.isidentifier():
        what = f"{name}: {target.package!r} is not the name of a Python package"
        raise _wrong(what, "write the name that Python imports")
    dist = target.dist
    words = (dist.name, dist.version, dist.python, dist.platform)
    for word, rule in zip(words, (_NAME, _VERSION, _VERSION, _NAME), strict=True):
        if word is not None and not rule.fullmatch(word):
            what = f"{name}: dist has {word!r}, which pip would misread"
            raise _wrong(what, "write it as on the package index")


def _wrong(what: str, step: str) -> InputError:
    finding = Finding(what, path=MANIFEST, next_step=step)
    return InputError(f"{MANIFEST}: {what}", (finding,))
