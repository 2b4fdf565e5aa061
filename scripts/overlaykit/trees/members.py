"""What a wheel holds, looked through before a byte of it is used.

A wheel is a zip file, and a zip file may hold anything: names that leave the folder
that it is unpacked in, one name twice (readers differ in which they take), two names
that are one where case does not count, symbolic links. None has a use in a package, so
whoever finds one is shown an attack or a defect, and neither is to be worked around.
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

    ``place`` says where a member goes in the tree, and gives None for one that has no
    place there. Of such only the name is looked at: AITER's wheel has a ``.git`` of a
    library beside the package, which nobody lays out.
    """
    found: Members = {}
    laid: dict[str, str] = {}
    for info in archive.infolist():
        # As the file has it: `filename` ends at a NUL, if there is one.
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
            raise _refused(name, member, "is there more than once")
        found[member] = info
        if path is not None:
            kind = stat.S_IFMT(info.external_attr >> 16)
            if kind not in (0, stat.S_IFREG):
                raise _refused(name, member, "is a link, or no file")
            laid[path] = member
    _refuse_collisions(name, laid)
    return found


def _refuse_collisions(name: str, laid: dict[str, str]) -> None:
    """Of files and of the folders that they need: one place, one name, one kind."""
    places: dict[str, tuple[str, bool]] = {}
    for path, member in laid.items():
        for place, is_file in _with_folders(path):
            known = places.setdefault(folded(place), (place, is_file))
            if known != (place, is_file):
                other = printable(known[0])
                raise _refused(name, member, f"is in the way of {other}, or differs "
                               "from it in case alone")  # fmt: skip


def _with_folders(path: str) -> Iterable[tuple[str, bool]]:
    yield path, True
    while slash := path.rpartition("/")[0]:
        path = slash
        yield path, False


def read(archive: zipfile.ZipFile, info: zipfile.ZipInfo, name: str) -> bytes:
    """A member's bytes. Raises EnvironmentFailure where it cannot be unpacked."""
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
        expected="files in the folders of the package, each once",
        next_step="do not use this package until you know who made it, and why",
    )
    return InputError(f"{name}: member {printable(member)!r} {what}", (finding,))
