"""A quilt series on disk: ``patches/<target>/series`` and the patches it lists."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from overlaykit.core.errors import Finding, InputError
from overlaykit.core.paths import check_name, check_path
from overlaykit.series.mail import UnreadableHeader, read_mail
from overlaykit.series.patches import FileDiff, Patch, apply_hunks, parse_patch

SERIES = "series"
_SHOWN = 255
_REQUIRED_FIELDS = ("Forwarded", "X-Drop-When", "X-Sites")


@dataclass(frozen=True)
class Series:
    """Patches, in the order in which they apply."""

    patches: tuple[Patch, ...]

    @cached_property
    def paths(self) -> tuple[str, ...]:
        """The files that the series changes, in order of first use."""
        return tuple(dict.fromkeys(f.path for p in self.patches for f in p.files))

    def diffs(self, path: str) -> tuple[tuple[Patch, FileDiff], ...]:
        """The patches that change one file, in order."""
        return tuple(self._diffs.get(path, ()))

    @cached_property
    def _diffs(self) -> dict[str, list[tuple[Patch, FileDiff]]]:
        """Diffs by path: callers look up every file, and there may be thousands."""
        found: dict[str, list[tuple[Patch, FileDiff]]] = {}
        for patch in self.patches:
            for diff in patch.files:
                found.setdefault(diff.path, []).append((patch, diff))
        return found

    def patched(self, path: str, pinned: bytes) -> bytes:
        """A file of the pinned release after the whole series."""
        for patch, diff in self.diffs(path):
            after = apply_hunks(pinned, diff.hunks)
            if after is None:
                raise ValueError(f"{patch.name} does not fit {path}")
            pinned = after
        return pinned


@dataclass(frozen=True)
class Header:
    """A patch's own description.

    The mail's fields as git reads them, and the DEP-3 fields of the last paragraph of
    its text (https://dep-team.pages.debian.net/deps/dep3/). ``X-Sites`` has one line
    per scope: ``Class.method: S1 S2``.
    """

    name: str
    address: str
    date: str
    subject: str
    body: str
    fields: Mapping[str, str]

    @property
    def author(self) -> str:
        """The author as in a mail's ``From:``."""
        return f"{self.name} <{self.address}>"

    @property
    def message(self) -> str:
        """The commit message that ``git am`` would write."""
        return f"{self.subject}\n\n{self.body}\n"

    @cached_property
    def sites(self) -> dict[str, tuple[str, ...]]:
        """Site names by scope."""
        rows = (r.partition(":") for r in self.fields.get("X-Sites", "").splitlines())
        return {
            scope.strip(): tuple(sites.split()) for scope, _, sites in rows if sites
        }


def read_header(patch: Patch) -> Header:
    """The header of a patch. Raises InputError if a field is missing or git cannot read
    the header."""
    try:
        mail = read_mail(patch.header)
    except (UnreadableHeader, UnicodeDecodeError) as error:
        field = error.field if isinstance(error, UnreadableHeader) else ""
        line = _line_of(patch.header, field)
        finding = Finding(
            f"{error}",
            path=patch.name,
            line=line,
            expected="a header that git am accepts",
            next_step="correct it, or make the patch again with git format-patch",
        )
        raise InputError(
            f"{patch.name}:{line}: git cannot read the header", (finding,)
        ) from error
    fields: dict[str, str] = {}
    last = ""
    for row in mail.body.rpartition("\n\n")[2].splitlines():
        if row[:1] in (" ", "\t") and last:
            fields[last] += "\n" + row.strip()
            continue
        name, colon, value = row.partition(":")
        if not colon or " " in name:
            continue
        last = name
        fields[name] = value.strip()
    given = {"From": mail.address, "Date": mail.date, "Subject": mail.subject}
    missing = [
        *(name for name, value in given.items() if not value),
        *(name for name in _REQUIRED_FIELDS if name not in fields),
    ]
    if missing:
        raise InputError(f"{patch.name}: the header lacks {', '.join(missing)}")
    return Header(mail.name, mail.address, mail.date, mail.subject, mail.body, fields)


def _line_of(header: bytes, field: str) -> int:
    """The line of a header field; the first line if the field is missing."""
    start = field.lower().encode() + b":"
    for number, line in enumerate(header.splitlines(), 1):
        if field and line.lower().startswith(start):
            return number
    return 1


def load_series(folder: Path) -> Series:
    """Read a series. Raises InputError for a missing, repeated or unlisted patch."""
    listing = folder / SERIES
    try:
        text = listing.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        what = "does not exist" if isinstance(error, FileNotFoundError) else str(error)
        raise _wrong(listing, what, "list the patches in it, one a line") from None
    names: dict[str, None] = {}
    for number, line in enumerate(text.splitlines(), 1):
        name = line.partition("#")[0].strip()
        if not name:
            continue
        if not _is_name(name):
            what = f"{name[:_SHOWN]!r} is not the name of a patch in {folder}"
            raise _wrong(listing, what, "write one file name per line", number)
        if not _is_file(folder / name):
            what = f"{name[:_SHOWN]} does not exist in {folder}"
            raise _wrong(listing, what, "add the patch or remove the line", number)
        if name in names:
            what = f"{name} is listed more than once"
            raise _wrong(listing, what, "remove one of the lines", number)
        names[name] = None
    inside = (p.name for p in folder.iterdir())
    stray = sorted(n for n in inside if n != SERIES and n not in names)
    if stray:
        what = f"{SERIES} does not list {', '.join(stray)}"
        raise _wrong(folder, what, f"list it in {SERIES} or move it away")
    return Series(tuple(parse_patch(n, (folder / n).read_bytes()) for n in names))


def _is_name(name: str) -> bool:
    try:
        check_name(name)
    except InputError:
        return False
    return len(name.split()) == 1 and name != SERIES


def _is_file(path: Path) -> bool:
    """Whether the file exists; False for an impossible name, such as one too long."""
    try:
        return path.is_file()
    except OSError:
        return False


def _wrong(
    path: Path, what: str, next_step: str, line: int | None = None
) -> InputError:
    where = f"{path}:{line}" if line is not None else str(path)
    finding = Finding(what, path=str(path), line=line, next_step=next_step)
    return InputError(f"{where}: {what}", (finding,))


@dataclass(frozen=True)
class NewFile:
    """A file that the overlay adds to the tree."""

    path: str
    mode: str
    data: bytes


def load_new_files(folder: Path) -> tuple[NewFile, ...]:
    """The files under ``overlay/<target>``, with their paths in the repository."""
    found = []
    for place in sorted(folder.rglob("*")):
        if place.is_symlink():
            step = "replace the link with the file that it points to"
            raise _wrong(place, "is a symbolic link", step)
        if place.is_dir() or "__pycache__" in place.parts:
            continue
        path = place.relative_to(folder).as_posix()
        check_path(path)
        mode = "100755" if place.stat().st_mode & 0o100 else "100644"
        found.append(NewFile(path, mode, place.read_bytes()))
    return tuple(found)
