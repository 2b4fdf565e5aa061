"""Checking the members of a wheel before any of them is used.

A wheel is a zip file, and a zip file may contain names that leave the folder that it is
unpacked in, one name twice (readers differ in which they take), names that differ in
case alone, and symbolic links. It may also unpack to thousands of times its size, or to
another size than it declares. No package needs these: they mean an attack or a defect,
so the wheel is rejected.
"""

from __future__ import annotations

import copy
import stat
import zipfile
import zlib
from collections.abc import Callable, Iterable

from overlaykit.core.errors import EnvironmentFailure, Finding, InputError
from overlaykit.core.paths import check_inside, check_path, folded, printable

Members = dict[str, zipfile.ZipInfo]

# Of SGLang's and AITER's releases the largest unpacks to 160 MB, and the largest file
# to 25 MB. A file is read into memory.
LARGEST_FILE = 1 << 28
LARGEST_WHEEL = 1 << 32
# Python inflates these in bounded steps; no other method occurs in a wheel.
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
# More than Python inflates in a step for a small read.
_STEP = 1 << 16
_FILES = "regular files in the package's folders, each once"


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
    total = 0
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
        total += info.file_size
        _check_size(name, member, info, total)
        if path is not None:
            kind = stat.S_IFMT(info.external_attr >> 16)
            if kind not in (0, stat.S_IFREG):
                raise _refused(name, member, "is not a regular file")
            laid[path] = member
    _refuse_collisions(name, laid)
    return found


def _check_size(name: str, member: str, info: zipfile.ZipInfo, total: int) -> None:
    """``total`` is the size of all members so far. :func:`read` checks that a member
    has its declared size."""
    if info.compress_type not in _METHODS:
        what = f"is compressed by method {info.compress_type}"
        raise _refused(name, member, what, "methods 0 (stored) and 8 (deflated)")
    if info.file_size > LARGEST_FILE:
        what = f"unpacks to {info.file_size} bytes"
        raise _refused(name, member, what, f"at most {LARGEST_FILE} bytes a file")
    if total > LARGEST_WHEEL:
        what = f"makes the package unpack to more than {LARGEST_WHEEL} bytes"
        raise _refused(name, member, what, f"at most {LARGEST_WHEEL} bytes in all")


def _refuse_collisions(name: str, laid: dict[str, str]) -> None:
    """Reject paths, and folders that they need, which differ in case alone or are both
    a file and a folder."""
    places: dict[str, tuple[str, bool]] = {}
    folders: set[str] = set()
    for path, member in laid.items():
        for place, is_file in _with_folders(path, folders):
            known = places.setdefault(folded(place), (place, is_file))
            if known != (place, is_file):
                other = printable(known[0])
                raise _refused(name, member, f"collides with {other}, or differs "
                               "from it in case alone")  # fmt: skip


def _with_folders(path: str, known: set[str]) -> Iterable[tuple[str, bool]]:
    """A file and the folders that it needs, from the innermost to one that is known."""
    yield path, True
    while (path := path.rpartition("/")[0]) and path not in known:
        known.add(path)
        yield path, False


def read(archive: zipfile.ZipFile, info: zipfile.ZipInfo, name: str) -> bytes:
    """A member's bytes.

    Raises EnvironmentFailure if it cannot be unpacked, and InputError if it unpacks to
    another size than it declares. Never more than that is unpacked.
    """
    # Python cuts a member at its declared size, so a longer one would not be noticed;
    # it checks the checksum of a member that ends before the size that it is given.
    longer = copy.copy(info)
    longer.file_size += _STEP
    try:
        with archive.open(longer) as file:
            data = file.read(info.file_size + 1)
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
    if len(data) != info.file_size:
        kind = "more" if len(data) > info.file_size else "fewer"
        raise _refused(
            name,
            info.orig_filename,
            f"unpacks to {kind} bytes than it declares",
            f"{info.file_size} bytes",
        )
    return data


def _refused(name: str, member: str, what: str, expected: str = _FILES) -> InputError:
    finding = Finding(
        what,
        path=printable(member),
        expected=expected,
        next_step="do not use this package until you know who made it and why",
    )
    return InputError(f"{name}: member {printable(member)!r} {what}", (finding,))
