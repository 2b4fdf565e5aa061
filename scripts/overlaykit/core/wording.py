"""Text from outside, made fit to be shown on a terminal and pasted into a shell.

File names are bytes, and git's errors, logs and servers' answers are whatever somebody
wrote into them: an escape sequence in one must not paint over a verdict, a line end
must not forge a line of a report, and bytes that are no text must not end the program.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable

_LAYOUT = "\n\t"


def readable(text: str, keep: str = _LAYOUT) -> str:
    """The text with all that does not print (control characters, marks that reorder
    text, bytes that are not UTF-8) as Python's escapes; line ends and tabs stay."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in keep else _escaped(c) for c in text)


def one_line(text: str) -> str:
    """As :func:`readable`, line ends escaped too: for names, and cells of tables."""
    return readable(text, keep="")


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


def pasteable(words: Iterable[str]) -> str:
    """A command line that bash takes back as these words, however it is shown."""
    return " ".join(map(quoted, words))


def quoted(word: str) -> str:
    """One word for bash. ``$'...'`` only where plain quotes would hold characters that
    do not print: shown, they would be escaped, and pasted no longer be the word."""
    if readable(word) == word:
        return shlex.quote(word)
    return "$'" + "".join(map(_ansi_c, word)) + "'"


def _ansi_c(character: str) -> str:
    if character in "\\'":
        return f"\\{character}"
    if character.isprintable():
        return character
    # Octal: always three digits, so that a digit after it stays one of its own.
    return "".join(f"\\{byte:03o}" for byte in os.fsencode(character))
