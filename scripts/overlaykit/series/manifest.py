"""``overlay.toml``: the targets of an overlay and the base each one pins.

A base is a package from the index (``dist``), a commit of the repository (``commit``),
a tag of it (``tag`` alone; the lock records its commit), or a commit and the package
that was built from it (``commit`` and ``dist``). Of the last, the lock proves that both
have the same files where the series touches them.
"""

from __future__ import annotations

import re
from pathlib import Path

import msgspec

from overlaykit.core.documents import from_toml
from overlaykit.core.errors import Finding, InputError
from overlaykit.core.gitnames import check_commit, check_repository, check_tag
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
    """One base: a state of an upstream repository that the overlay changes.

    At least one of ``dist``, ``commit`` and ``tag`` names it. ``package`` is the
    importable package; ``package_root`` is its folder in the repository. Several
    targets may share one package: they are its bases, and each has its own series.
    ``overlay`` names the target whose new files this one shares, so that no file is
    kept twice.
    """

    repository: str
    package: str
    package_root: str
    dist: Dist | None = None
    commit: str | None = None
    tag: str | None = None
    image: str | None = None
    overlay: str | None = None

    @property
    def release(self) -> str:
        """The name of the base in messages."""
        if self.dist is not None:
            return f"{self.dist.name} {self.dist.version}"
        return f"{self.package} at {self.commit[:12] if self.commit else self.tag}"

    @property
    def package_dist(self) -> Dist:
        """The pinned distribution. Raises InputError if the base is only a commit."""
        if self.dist is None:
            step = "name a base that is a package, or use --clone"
            finding = Finding("is not a package", path=self.release, next_step=step)
            what = f"{self.release} is a commit, not a package of the index"
            raise InputError(what, (finding,))
        return self.dist

    @property
    def names(self) -> frozenset[str]:
        """The package's own name and its distribution's."""
        dist = {self.dist.name} if self.dist is not None else set[str]()
        return frozenset({self.package, *dist})

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

    def as_released(self, name: str) -> Target:
        """The target as its package is released: itself, or if it is only a commit,
        the target with the distribution of another base of its package."""
        target = self.targets[name]
        bases = (self.targets[base] for base in self.bases(target.package))
        known = (base.dist for base in bases if base.dist is not None)
        dist = target.dist or next(known, None)
        return msgspec.structs.replace(target, dist=dist)


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
    """Check the fields that become file paths or arguments of git or pip."""
    try:
        check_path(target.package_root)
    except InputError as error:
        step = "write the package's folder in the repository"
        raise _wrong(f"{name}: package_root: {error.message}", step) from None
    if not target.package.isidentifier():
        what = f"{name}: {target.package!r} is not the name of a Python package"
        raise _wrong(what, "write the name that Python imports")
    _check_git(name, target)
    if (dist := target.dist) is None:
        return
    words = (dist.name, dist.version, dist.python, dist.platform)
    for word, rule in zip(words, (_NAME, _VERSION, _VERSION, _NAME), strict=True):
        if word is not None and not rule.fullmatch(word):
            what = f"{name}: dist has {word!r}, which pip would misread"
            raise _wrong(what, "write it as on the package index")


def _check_git(name: str, target: Target) -> None:
    """Check what names the base in the repository."""
    if (target.dist, target.commit, target.tag) == (None, None, None):
        step = "write dist (a package), commit (a full id), tag, or commit and dist"
        raise _wrong(f"{name} names no base", step)
    try:
        field, step = "repository", "write the address that git clone takes"
        check_repository(target.repository)
        field, step = "tag", "write the tag without refs/tags/"
        if target.tag is not None:
            check_tag(target.tag)
        if target.commit is not None:
            field, short = "commit", target.commit[:12]
            step = f"write all 40 digits: git rev-parse '{short}^{{commit}}' in a clone"
            check_commit(target.commit)
    except InputError as error:
        raise _wrong(f"{name}: {field}: {error.message}", step) from None


def _wrong(what: str, step: str) -> InputError:
    finding = Finding(what, path=MANIFEST, next_step=step)
    return InputError(f"{MANIFEST}: {what}", (finding,))
