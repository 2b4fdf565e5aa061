"""``overlay.toml``: what is carried, onto which upstream release."""

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
    # Wheels built for one Python or platform are fetched for that one, whatever runs
    # here: they are read as sources and never installed.
    python: str | None = None
    platform: str | None = None


class Target(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An upstream repository that the overlay changes, as one release has it.

    ``package`` is the importable package; ``package_root`` where the repository holds
    it. Several targets may have one package: they are its bases, each with a series of
    its own; ``overlay`` names the target whose new files such a one lays as well, so
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
        """What a message calls the base."""
        return f"{self.dist.name} {self.dist.version}"

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

    def bases(self, package: str) -> tuple[str, ...]:
        """The targets that are releases of one package, in the manifest's order."""
        return tuple(n for n, t in self.targets.items() if t.package == package)


def load_manifest(root: Path) -> Manifest:
    """Read ``overlay.toml`` of an overlay. Raises InputError where it is wrong."""
    path = root / MANIFEST
    try:
        return parse_manifest(path.read_bytes())
    except FileNotFoundError:
        raise InputError(f"{path} does not exist: not an overlay") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        step = "correct it; README says what it holds"
        finding = Finding(str(error), path=MANIFEST, next_step=step)
        raise InputError(f"{path} is not a manifest: {error}", (finding,)) from error


def parse_manifest(data: bytes) -> Manifest:
    """What a manifest's text says. Raises msgspec.DecodeError or InputError."""
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
            what = f"{name} shares the new files of {target.overlay!r}"
            step = f"name a target of {target.package} that has new files of its own"
            raise _wrong(what, step)
    return manifest


def check_target_name(name: str) -> None:
    """Raises InputError for what cannot be a target's name: it names folders."""
    if not _NAME.fullmatch(name):
        raise InputError(f"{name!r} cannot be the name of a folder")


def _check(name: str, target: Target) -> None:
    """What leads to files, and to the command lines of pip."""
    try:
        check_path(target.package_root)
    except InputError as error:
        step = "write the folder of the package as the repository has it"
        raise _wrong(f"{name}: package_root: {error.message}", step) from None
    if not target.package.isidentifier():
        what = f"{name}: package {target.package!r} cannot be imported"
        raise _wrong(what, "write the name of one package")
    dist = target.dist
    told = (dist.name, dist.version, dist.python, dist.platform)
    for word, rule in zip(told, (_NAME, _VERSION, _VERSION, _NAME), strict=True):
        if word is not None and not rule.fullmatch(word):
            what = f"{name}: dist has {word!r}, which pip would take for something else"
            raise _wrong(what, "write it as the package index does")


def _wrong(what: str, step: str) -> InputError:
    finding = Finding(what, path=MANIFEST, next_step=step)
    return InputError(f"{MANIFEST}: {what}", (finding,))
