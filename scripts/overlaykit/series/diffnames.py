"""File names in diff headers, as git writes and reads them.

In the ``---`` and ``+++`` lines, git adds a tab after a name with a space, so that
other tools can find its end. Git quotes a name with a quotation mark, a backslash or a
control character, with C escapes. With ``core.quotePath``, git's default, it also
quotes names that are not ASCII.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_DIFF, _BETWEEN = b"diff --git a/", b" b/"
_REST = rb'(?:[^"\\\n]|\\.)*"'
_QUOTED = re.compile(rb'diff --git ("a/' + _REST + rb') ("b/' + _REST + rb")\n")
_ESCAPE = re.compile(rb"\\([0-7]{3}|.)")
_LETTERS = {
    b"a": b"\a", b"b": b"\b", b"f": b"\f", b"n": b"\n", b"r": b"\r", b"t": b"\t",
    b"v": b"\v", b'"': b'"', b"\\": b"\\",
}  # fmt: skip


@dataclass(frozen=True)
class Named:
    """The file that a diff header names twice: its path, and both names as written."""

    path: bytes
    old: bytes
    new: bytes

    def is_line(self, line: bytes, marker: bytes) -> bool:
        """Whether this is the file's ``---`` or ``+++`` line, with or without a tab."""
        name = self.old if marker == b"---" else self.new
        ends = (b"\n", b"\t\n") if b" " in name else (b"\n",)
        return any(line == marker + b" " + name + end for end in ends)


def read_header(line: bytes) -> Named | None:
    """Read a ``diff --git`` line. None unless it names one path twice."""
    if quoted := _QUOTED.fullmatch(line):
        old, new = (_unquoted(name[1:-1]) for name in quoted.groups())
        if old is None or new is None or old[2:] != new[2:] or not old[2:]:
            return None
        return Named(old[2:], quoted[1], quoted[2])
    # Split by length: the text between the two names may also occur inside them.
    names = line[len(_DIFF) : -1]
    path = names[: (len(names) - len(_BETWEEN)) // 2]
    if not path or line != _DIFF + path + _BETWEEN + path + b"\n":
        return None
    return Named(path, b"a/" + path, b"b/" + path)


def new_file_names(path: str) -> tuple[str, str]:
    """The ``diff --git`` and ``+++`` lines of a new file, without line ends.

    Paths of an overlay have no backslash and no control character.
    """
    old, new = (_quoted(f"{side}/{path}") for side in "ab")
    return f"diff --git {old} {new}", f"+++ {new}" + "\t" * (" " in path)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '\\"') + '"' if '"' in name else name


def _unquoted(text: bytes) -> bytes | None:
    """Resolve git's escapes. None if there is an escape that git does not write."""
    known = True

    def letter(found: re.Match[bytes]) -> bytes:
        nonlocal known
        if len(found[1]) == 3 and int(found[1], 8) < 256:
            return bytes([int(found[1], 8)])
        known = known and found[1] in _LETTERS
        return _LETTERS.get(found[1], b"")

    plain = _ESCAPE.sub(letter, text)
    return plain if known else None
