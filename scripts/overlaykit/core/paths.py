"""The check for every path that comes from outside.

Packages, clones, patches, locks, journals and manifests all name files, and an attacker
may have written any of them. A path is rejected if it could leave its folder, contain a
line end in git's input or in a message, or name a file of a git repository: git runs
commands that ``.git/config`` names. Windows and macOS accept further spellings of
``.git``, which git rejects too (CVE-2014-9390); a tree may be copied to such a system.
"""

from __future__ import annotations

import re
import unicodedata

from overlaykit.core.errors import Finding, InputError

OWN_FOLDER = ".overlay-transaction"
"""The folder of a transaction's journal, at the top of the tree that it changes."""

# NTFS ignores dots and spaces at the end of a name, reads a colon as the start of a
# stream name, and has a short name for `.git`. HFS+ ignores some invisible characters.
# Those are rejected everywhere, because they also make one name look like another.
_GIT = re.compile(r"(?:^|/)(\.git|git~1)[. ]*(:[^/]*)?(?:/|$)", re.IGNORECASE)
_NO_PART = frozenset(("", ".", ".."))
_INVISIBLE = {"Cc", "Cf", "Cs", "Zl", "Zp"}


def check_inside(path: str) -> None:
    """Check that a path stays below its folder. Raises InputError."""
    if not path or path.startswith("/"):
        raise _refused(path, "is not a relative path")
    if "\\" in path or _has_invisible(path):
        raise _refused(path, "contains a backslash or an invisible character")
    if not _NO_PART.isdisjoint(path.split("/")):
        raise _refused(path, "contains an empty part, `.` or `..`")


def check_path(path: str) -> None:
    """Check that a path stays in its tree and names no git file. Raises InputError.

    Every path from outside passes this check before it is used.
    """
    check_inside(path)
    if _GIT.search(path):
        raise _refused(path, "names git's own files")
    if OWN_FOLDER in path.split("/"):
        raise _refused(path, "names a transaction's journal")


def check_name(name: str) -> None:
    """Check that a name is a single path component. Raises InputError."""
    check_path(name)
    if "/" in name:
        raise _refused(name, "is a path, not a file name")


def printable(path: str) -> str:
    """A path for a message: characters that cannot be printed are escaped."""
    return path if path.isprintable() else repr(path)[1:-1]


def folded(path: str) -> str:
    """The key that paths share if they name one file on a system that ignores case."""
    if path.isascii():
        return path.lower()
    return unicodedata.normalize("NFC", path.casefold())


def _has_invisible(path: str) -> bool:
    if path.isascii():
        return not path.isprintable()
    return any(unicodedata.category(letter) in _INVISIBLE for letter in path)


def _refused(path: str, what: str) -> InputError:
    finding = Finding(
        what,
        path=printable(path) or "(empty)",
        expected="a path below its folder: no `..`, no backslash, no `.git`",
        next_step="do not use this until you know who wrote it and why",
    )
    return InputError(f"path {printable(path)!r} {what}", (finding,))
