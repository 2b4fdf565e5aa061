"""Patch files in ``git format-patch`` form, parsed strictly.

Every line must be part of the mail header, a git diff header or a counted hunk.
Anything else is an error with its file and line: tools that skip lines they do not
understand apply less than the patch says.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby

from overlaykit.core.errors import Finding, InputError
from overlaykit.core.paths import check_path
from overlaykit.series.diffnames import read_header

_INDEX = re.compile(rb"index ([0-9a-f]{40})\.\.([0-9a-f]{40})(?: (\d{6}))?\n")
# Limit the digits: no file has a billion lines, and Python rejects very long numbers.
_RANGE = rb"([0-9]{1,9})(?:,([0-9]{1,9}))?"
_HUNK = re.compile(rb"@@ -" + _RANGE + rb" \+" + _RANGE + rb" @@(?: .*)?\n")
_SIGNATURE = b"-- \n"
_SHOWN, _LISTED = 200, 10
_REMAKE = "re-make the patch with git format-patch --full-index"
_LEAVE_OUT = "leave this file out: a series cannot carry a file with this name"


@dataclass(frozen=True)
class Change:
    """Adjacent removed and added lines of a hunk.

    ``old_line`` and ``new_line`` are the 1-based lines at which the removed and the
    added lines begin, or would begin if there are none.
    """

    old_line: int
    new_line: int
    removed: tuple[bytes, ...]
    added: tuple[bytes, ...]


@dataclass(frozen=True)
class Hunk:
    """A counted block of context, removed and added lines, with their line ends."""

    path: str
    number: int
    at: int
    old_start: int
    new_start: int
    lines: tuple[tuple[str, bytes], ...]

    @cached_property
    def old(self) -> tuple[bytes, ...]:
        """The lines that the hunk expects: context and removed."""
        return tuple(line for tag, line in self.lines if tag != "+")

    @cached_property
    def new(self) -> tuple[bytes, ...]:
        """The lines that the hunk leaves: context and added."""
        return tuple(line for tag, line in self.lines if tag != "-")

    @cached_property
    def changes(self) -> tuple[Change, ...]:
        """The changed lines without their context."""
        found = []
        old, new = self.old_start, self.new_start
        for context, group in groupby(self.lines, key=lambda line: line[0] == " "):
            run = list(group)
            removed = tuple(line for tag, line in run if tag == "-")
            added = tuple(line for tag, line in run if tag == "+")
            if not context:
                found.append(Change(old, new, removed, added))
            old += len(run) if context else len(removed)
            new += len(run) if context else len(added)
        return tuple(found)

    def reversed(self) -> Hunk:
        """The hunk that undoes this one."""
        swap = {"+": "-", "-": "+", " ": " "}
        return Hunk(
            self.path,
            self.number,
            self.at,
            self.new_start,
            self.old_start,
            tuple((swap[tag], line) for tag, line in self.lines),
        )


@dataclass(frozen=True)
class FileDiff:
    """A patch's change to one file; the blob ids come from the index line."""

    path: str
    before: str
    after: str
    hunks: tuple[Hunk, ...]


@dataclass(frozen=True)
class Patch:
    """A patch file: its name in the series, its bytes and its parsed contents."""

    name: str
    data: bytes
    header: bytes
    files: tuple[FileDiff, ...]

    @cached_property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()


def split_lines(data: bytes) -> list[bytes]:
    """Split into lines with their ends, at newlines only, as git and diff do."""
    *whole, last = data.split(b"\n")
    return [line + b"\n" for line in whole] + ([last] if last else [])


class Places:
    """Finds blocks of lines in a file.

    Keeps an index of the lines, so that finding every hunk of a patch does not scan
    the file each time.
    """

    def __init__(self, lines: Sequence[bytes]) -> None:
        self._lines = lines
        self._by_line: dict[bytes, list[int]] = {}
        for at, line in enumerate(lines):
            self._by_line.setdefault(line, []).append(at)

    def of(self, block: tuple[bytes, ...]) -> list[int]:
        """The 1-based lines at which ``block`` occurs; an empty one is everywhere."""
        if not block:
            return [*range(1, len(self._lines) + 2)]
        found = [self._by_line.get(line, []) for line in block]
        rarest = min(range(len(block)), key=lambda number: len(found[number]))
        starts = (at - rarest for at in found[rarest])
        return [
            at + 1
            for at in starts
            if at >= 0 and tuple(self._lines[at : at + len(block)]) == block
        ]


def listed(places: Sequence[int]) -> str:
    """Line numbers for a message; only the first few of many."""
    more = f" and {len(places) - _LISTED} more" if len(places) > _LISTED else ""
    return f"{[*places[:_LISTED]]}{more}"


def occurrences(lines: Sequence[bytes], block: tuple[bytes, ...]) -> list[int]:
    """Like :meth:`Places.of`, for a single block."""
    return Places(lines).of(block)


def apply_hunks(data: bytes, hunks: Sequence[Hunk]) -> bytes | None:
    """Apply the hunks at exactly their line numbers; None if one does not fit.

    There is no offset and no fuzz: use this for contents whose blob id matches.
    """
    lines = split_lines(data)
    out: list[bytes] = []
    done = 0
    for hunk in hunks:
        # A hunk that expects no lines gives the number of the line before it.
        start = hunk.old_start - 1 if hunk.old else hunk.old_start
        stop = start + len(hunk.old)
        if start < done or tuple(lines[start:stop]) != hunk.old:
            return None
        out += lines[done:start]
        out += hunk.new
        done = stop
    return b"".join(out + lines[done:])


def reverse_hunks(data: bytes, hunks: Sequence[Hunk]) -> bytes | None:
    """Undo the hunks at exactly their line numbers; None if one does not fit."""
    return apply_hunks(data, [hunk.reversed() for hunk in hunks])


class _Reader:
    """Reads the lines of a patch file and reports errors with their line."""

    def __init__(self, name: str, data: bytes) -> None:
        self.name = name
        self.lines = split_lines(data)
        self.at = 0

    def peek(self) -> bytes:
        return self.lines[self.at] if self.at < len(self.lines) else b""

    def take(self) -> bytes:
        line = self.peek()
        self.at += 1
        return line

    def error(
        self, what: str, expected: str, at: int | None = None, step: str = _REMAKE
    ) -> InputError:
        line = self.at + 1 if at is None else at
        found = self.lines[line - 1] if line <= len(self.lines) else b"end of file"
        shown = found[:_SHOWN].decode(errors="replace").rstrip("\n")
        more = "..." if len(found) > _SHOWN else ""
        return InputError(
            f"{self.name}:{line}: {what}",
            (
                Finding(
                    what,
                    path=self.name,
                    line=line,
                    expected=expected,
                    found=f"{shown!r}{more}",
                    next_step=step,
                ),
            ),
        )


def parse_patch(name: str, data: bytes) -> Patch:
    """Parse a patch file. Raises InputError, with file and line, if it is corrupt."""
    reader = _Reader(name, data)
    while reader.peek() and not reader.peek().startswith(b"diff --git "):
        reader.take()
    header = b"".join(reader.lines[: reader.at])
    files = tuple(_files(reader))
    if not files:
        raise reader.error("the patch changes no file", "diff --git a/PATH b/PATH")
    seen: set[str] = set()
    for path in (f.path for f in files):
        if path in seen:
            what = f"{name}: {path} occurs more than once"
            step = "merge its hunks under one header"
            raise InputError(what, (Finding(what, path=path, next_step=step),))
        seen.add(path)
    return Patch(name, data, header, files)


def _files(reader: _Reader) -> Iterator[FileDiff]:
    while reader.peek() and reader.peek() != _SIGNATURE:
        yield _file(reader)
    # Git's signature: a marker, one line with its version, and nothing else.
    reader.at += 2 if reader.peek() else 0
    while reader.peek():
        if reader.take().strip():
            what = "there is text after the signature"
            raise reader.error(what, "end of file", reader.at)


def _file(reader: _Reader) -> FileDiff:
    named = read_header(reader.peek())
    if named is None:
        raise reader.error(
            "expected a diff header", "diff --git a/PATH b/PATH, one path"
        )
    reader.take()
    try:
        path = named.path.decode()
        check_path(path)
    except InputError as error:
        raise reader.error(
            error.message, "a path inside the tree", reader.at, _LEAVE_OUT
        ) from None
    except UnicodeDecodeError:
        what = "the path is not UTF-8"
        raise reader.error(what, "a path", reader.at, _LEAVE_OUT) from None
    index = _INDEX.fullmatch(reader.peek())
    if not index:
        raise reader.error(
            "expected an index line with full ids (a series cannot add, delete or "
            "rename files, change binary files or modes; new files go into overlay/)",
            "index <40 hex>..<40 hex> <mode>",
        )
    reader.take()
    for marker, name in ((b"---", named.old), (b"+++", named.new)):
        if not named.is_line(reader.peek(), marker):
            expected = (marker + b" " + name).decode(errors="replace")
            raise reader.error("the file names do not match", expected)
        reader.take()
    hunks: list[Hunk] = []
    while reader.peek().startswith(b"@@"):
        hunks.append(_hunk(reader, path, len(hunks) + 1))
    if not hunks:
        raise reader.error("expected a hunk", "@@ -LINE,COUNT +LINE,COUNT @@")
    return FileDiff(path, index[1].decode(), index[2].decode(), tuple(hunks))


def _hunk(reader: _Reader, path: str, number: int) -> Hunk:
    at = reader.at + 1
    header = _HUNK.fullmatch(reader.take())
    if not header:
        raise reader.error("corrupt hunk header", "@@ -LINE,COUNT +LINE,COUNT @@", at)
    old_start, new_start = int(header[1]), int(header[3])
    old_left = 1 if header[2] is None else int(header[2])
    new_left = 1 if header[4] is None else int(header[4])
    lines: list[tuple[str, bytes]] = []
    while old_left or new_left:
        line = reader.peek()
        tag = line[:1].decode(errors="replace")
        if tag not in (" ", "+", "-") or not line.endswith(b"\n"):
            raise reader.error(
                f"hunk {number} (header at line {at}) ends early",
                f"{old_left} more old and {new_left} more new lines",
            )
        old_left -= tag != "+"
        new_left -= tag != "-"
        if old_left < 0 or new_left < 0:
            raise reader.error(
                f"hunk {number} (header at line {at}) is longer than its header says",
                "the line counts of the header",
            )
        reader.take()
        lines.append((tag, line[1:]))
        if reader.peek().startswith(b"\\ "):
            reader.take()
            lines[-1] = (tag, line[1:].removesuffix(b"\n"))
    if reader.peek()[:1] in (b" ", b"+", b"-") and reader.peek() != _SIGNATURE:
        raise reader.error(
            f"hunk {number} (header at line {at}) is longer than its header says",
            "the line counts of the header",
        )
    if all(tag == " " for tag, _ in lines):
        raise reader.error(f"hunk {number} changes nothing", "a changed line", at)
    return Hunk(path, number, at, old_start, new_start, tuple(lines))
