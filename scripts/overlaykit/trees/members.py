"""Checking the members of a wheel before any of them is used.

A wheel is a zip file, and a zip file may contain names that leave the folder that it is
unpacked in, one name twice (readers differ in which they take), names that differ in
case alone, and symbolic links. No package needs these: they mean an attack or a defect,
so the wheel is rejected.
"""

from __future__ import annotations

import stat
import zipfile
import zlib
from collections.abc import Callable, Iterable

from overlaykit.core.errors import EnvironmentFailure, Finding, InputError
from overlaykit.core.paths import check_inside, check_path, folded, printable

Members = dict[str, zipfile.ZipInfo]


def members(
    archive: zipfile.ZipFile, name: str, place: Callable[[str], str | None]
) -> Members:
    """The files of a wheel by name. Raises InputError, which names the member.

    ``place`` returns a member's path in the tree, or None if the tree leaves it out. Of
    those only the name is checked: AITER's wheel contains the ``.git`` of a library
    beside the package, which is never laid out.
    """
    found: Members = {}
    laid: dict[str, str] = {}
    for info in archive.infolist():
        # The name as stored: `filename` is cut at a NUL.
        member = info.orig_filename
        try:
            check_inside(member.removesuffix("/"))
            if (path := place(member)) is not None:
                check_path(path.removesuffix("/"))
        except InputError as error:
            what = error.findings[0].what
            raise _refused(name, member, what) from None
        if info.is_dir():
            continue
        if member in found:
            raise _refused(name, member, "occurs more than once")
        found[member] = info
        if path is not None:
            kind = stat.S_IFMT(info.external_attr >> 16)
            if kind not in (0, stat.S_IFREG):
                raise _refused(name, member, "is not a regular file")
            laid[path] = member
    _refuse_collisions(name, laid)
    return found


def _refuse_collisions(name: str, laid: dict[str, str]) -> None:
    """Reject paths, and folders that they need, which differ in case alone or are both
    a file and a folder."""
    places: dict[str, tuple[str, bool]] = {}
    for path, member in laid.items():
        for place, is_file in _with_folders(path):
            known = places.setdefault(folded(place), (place, is_file))
            if known != (place, is_file):
                other = printable(known[0])
                raise _refused(name, member, f"collides with {other}, or differs "
                               "from it in case alone")  # fmt: skip


def _with_folders(path: str) -> Iterable[tuple[str, bool]]:
    yield path, True
    while slash := path.rpartition("/")[0]:
        path = slash
        yield path, False


def read(archive: zipfile.ZipFile, info: zipfile.ZipInfo, name: str) -> bytes:
    """A member's bytes. Raises EnvironmentFailure if it cannot be unpacked."""
    try:
        return archive.read(info)
    except (
        OSError,
        EOFError,
        RuntimeError,
        NotImplementedError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        finding = Finding(
            "cannot be unpacked",
            path=printable(info.orig_filename),
            found=str(error),
            next_step=f"remove {name} and fetch it again",
        )
        raise EnvironmentFailure(f"{name} is damaged", (finding,)) from error


def _refused(name: str, member: str, what: str) -> InputError:
    finding = Finding(
        what,
        path=printable(member),
        expected="regular files in the package's folders, each once",
        next_step="do not use this package until you know who made it and why",
    )
    return InputError(f"{name}: member {printable(member)!r} {what}", (finding,))
