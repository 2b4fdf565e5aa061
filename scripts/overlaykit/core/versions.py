"""Versions of releases, and the order in which they were made."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Sequence
from importlib.metadata import distributions
from pathlib import Path

from overlaykit.core.errors import InputError

# Numbers have an end: Python refuses to read one of thousands of digits.
_N = "[0-9]{1,9}"
_VERSION = re.compile(rf"({_N}(?:\.{_N}){{0,9}})(?:\.post({_N}))?(?:\.dev({_N}))?")

Order = tuple[tuple[int, ...], int, float]


def order(version: str) -> Order:
    """What PEP 440 sorts a release by; alphas, betas and candidates are none.

    Raises InputError for what is no version, and for such.
    """
    found = _VERSION.fullmatch(version)
    if found is None:
        raise InputError(f"{version!r} is not the version of a release")
    numbers, post, dev = found.groups()
    release = tuple(map(int, re.sub(r"(\.0+)+$", "", numbers).split(".")))
    # A development version comes before what it leads to, a post-release after.
    return release, int(post or -1), float(dev or math.inf)


def is_final(version: str) -> bool:
    """Whether it is no development version."""
    return order(version)[2] == math.inf


def same_release(name: str, version: str) -> tuple[str, str | Order]:
    """What is equal for two spellings of one release of one distribution: an index
    takes ``SGLang`` for ``sglang``, and ``0.5.0`` for ``0.5``."""
    normal = re.sub(r"[-_.]+", "-", name).lower()
    try:
        return normal, order(version)
    except InputError:
        return normal, version


def release_of(wheel: str) -> tuple[str, str]:
    """The distribution and version that a wheel's file name begins with."""
    name, _, rest = wheel.partition("-")
    return name, rest.partition("-")[0]


def installed_version(
    package: Path, names: Collection[str], besides: Sequence[str] = ()
) -> str | None:
    """Of the distribution around a package, called one of ``names`` in lower case and
    perhaps found ``besides``, or what the package says of itself."""
    places = [str(package.resolve().parent), *besides]
    for one in distributions(path=places):
        if (one.metadata["Name"] or "").lower() in names:
            return one.version
    said = package / "_version.py"
    try:
        text = "" if said.is_symlink() else said.read_text("utf-8", "replace")
    except OSError:
        return None
    pattern = r"^(?:__version__|version)\b[^'\"\n]*['\"]([^'\"\n]{1,99})['\"]"
    match = re.search(pattern, text, re.MULTILINE)
    return match[1] if match else None
