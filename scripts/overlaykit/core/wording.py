"""Making text from outside safe to show on a terminal and to paste into a shell.

File names are bytes, and git's errors, logs and server responses may contain anything.
An escape sequence must not overwrite a verdict on the terminal, a line end must not
forge a line of a report, and bytes that are not text must not crash the program.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable

_LAYOUT = "\n\t"


def readable(text: str, keep: str = _LAYOUT) -> str:
    """The text with unprintable characters (control characters, marks that reorder
    text, bytes that are not UTF-8) as Python escapes; line ends and tabs stay."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in keep else _escaped(c) for c in text)


def one_line(text: str) -> str:
    """Like :func:`readable`, with line ends escaped too: for names and table cells."""
    return readable(text, keep="")


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


def pasteable(words: Iterable[str]) -> str:
    """A command line that bash splits into these words again."""
    return " ".join(map(quoted, words))


def quoted(word: str) -> str:
    """One word for bash. ``$'...'`` is used only for unprintable characters: between
    plain quotes they would be escaped when shown, and pasting would change the word."""
    if readable(word) == word:
        return shlex.quote(word)
    return "$'" + "".join(map(_ansi_c, word)) + "'"


def _ansi_c(character: str) -> str:
    if character in "\\'":
        return f"\\{character}"
    if character.isprintable():
        return character
    # Three octal digits each, so that a digit after them is not read with them.
    return "".join(f"\\{byte:03o}" for byte in os.fsencode(character))
