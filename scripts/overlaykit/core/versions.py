"""Release versions and their order."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Sequence
from pathlib import Path

from overlaykit.core.errors import InputError

# Python refuses to convert numbers of thousands of digits, so their length is limited.
_N = "[0-9]{1,9}"
_VERSION = re.compile(rf"({_N}(?:\.{_N}){{0,9}})(?:\.post({_N}))?(?:\.dev({_N}))?")

Order = tuple[tuple[int, ...], int, float]


def order(version: str) -> Order:
    """PEP 440's sort key of a release.

    Raises InputError for anything else, and for alphas, betas and release candidates.
    """
    found = _VERSION.fullmatch(version)
    if found is None:
        raise InputError(f"{version!r} is not the version of a release")
    numbers, post, dev = found.groups()
    release = tuple(map(int, re.sub(r"(\.0+)+$", "", numbers).split(".")))
    # A development version sorts before its release, a post-release after it.
    return release, int(post or -1), float(dev or math.inf)


def is_final(version: str) -> bool:
    """Whether the version is not a development version."""
    return order(version)[2] == math.inf


def same_release(name: str, version: str) -> tuple[str, str | Order]:
    """The key that all spellings of one release share: an index treats ``SGLang`` as
    ``sglang``, and ``0.5.0`` as ``0.5``."""
    normal = re.sub(r"[-_.]+", "-", name).lower()
    try:
        return normal, order(version)
    except InputError:
        return normal, version


def release_of(wheel: str) -> tuple[str, str]:
    """The distribution and version in a wheel's file name."""
    name, _, rest = wheel.partition("-")
    return name, rest.partition("-")[0]


def installed_version(
    package: Path, names: Collection[str], besides: Sequence[str] = ()
) -> str | None:
    """The version of an installed package: that of a distribution called one of
    ``names`` (lower case) beside the package or in ``besides``, else the version in
    the package's ``_version.py``."""
    # A tenth of what a verb imports, and most ask for no version.
    from importlib.metadata import distributions

    places = [str(package.resolve().parent), *besides]
    for one in distributions(path=places):
        if (one.metadata["Name"] or "").lower() in names:
            return one.version
    own = package / "_version.py"
    try:
        text = "" if own.is_symlink() else own.read_text("utf-8", "replace")
    except OSError:
        return None
    return stated_version(text)


def stated_version(text: str) -> str | None:
    """The version that the text of a ``_version.py`` states."""
    pattern = r"^(?:__version__|version)\b[^'\"\n]*['\"]([^'\"\n]{1,99})['\"]"
    match = re.search(pattern, text, re.MULTILINE)
    return match[1] if match else None
