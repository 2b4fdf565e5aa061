"""The one check of a path that comes from outside, whatever it is a path of.

A package, a clone, a patch, a lock, a journal and a manifest all name files, and each
may have been written by somebody who wishes harm. A name is refused where it could
leave the folder that it is below, end a line of what git or a person reads, or be a
part of a repository's own files: git runs commands that ``.git/config`` names. Windows
and macOS know ``.git`` under further names, which git refuses for the same reason
(CVE-2014-9390), and which a tree that is copied there would come to have.
"""

from __future__ import annotations

import re
import unicodedata

from overlaykit.core.errors import Finding, InputError

OWN_FOLDER = ".overlay-transaction"
"""Where a transaction keeps its journal, at the top of the tree that it changes."""

# NTFS leaves out dots and spaces at a name's end, takes a colon for the start of a
# stream, and gives `.git` a short name. HFS+ leaves out some characters that cannot be
# seen: such are refused in any place, as they also make a name look like another.
_GIT = re.compile(r"(\.git|git~1)[. ]*(:.*)?", re.IGNORECASE)
_UNSEEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}


def check_inside(path: str) -> None:
    """Refuse a path that is not one below a folder. Raises InputError."""
    if not path or path.startswith("/"):
        raise _refused(path, "is not relative to its folder")
    if "\\" in path or _has_unseen(path):
        raise _refused(path, "has a backslash or a character that cannot be seen")
    if any(part in ("", ".", "..") for part in path.split("/")):
        raise _refused(path, "leaves its folder, or names it in a roundabout way")


def check_path(path: str) -> None:
    """Refuse a path that could leave its tree, or steer git in it. Raises InputError.

    Every path that is read from outside passes this before anything is done with it.
    """
    check_inside(path)
    for part in path.split("/"):
        if _GIT.fullmatch(part):
            raise _refused(path, "names git's own files")
        if part == OWN_FOLDER:
            raise _refused(path, "names the journal of a change")


def check_name(name: str) -> None:
    """Refuse what is not the name of one file in a folder. Raises InputError."""
    check_path(name)
    if "/" in name:
        raise _refused(name, "is not the name of a file, but a path")


def printable(path: str) -> str:
    """A path as a message may hold it: what cannot be printed, or encoded, escaped."""
    return path if path.isprintable() else repr(path)[1:-1]


def folded(path: str) -> str:
    """What two paths have in common that are one file where case does not count."""
    return unicodedata.normalize("NFC", path.casefold())


def _has_unseen(path: str) -> bool:
    if path.isascii():
        return not path.isprintable()
    return any(unicodedata.category(letter) in _UNSEEN for letter in path)


def _refused(path: str, what: str) -> InputError:
    finding = Finding(
        what,
        path=printable(path) or "(empty)",
        expected="a path below its folder: no `..`, no backslash, no `.git`",
        next_step="do not use this until you know who wrote it, and why",
    )
    return InputError(f"path {printable(path)!r} {what}", (finding,))
