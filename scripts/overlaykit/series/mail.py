"""Patch headers, read by git itself.

``git am`` has its own rules for the author, date, subject and message of a patch: it
drops tags in brackets, prefers a ``From:`` in the body, assumes UTF-8 where no encoding
is stated and reads dates in many forms. A parser in Python would differ somewhere and
produce a different commit. So git parses the header: ``git mailinfo``, then ``git
stripspace`` for the message and ``git var`` for the author, as ``am`` does.
"""

from __future__ import annotations

import re
import tempfile
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from overlaykit.core import git

_IDENT = re.compile(r"(?P<name>.*) <(?P<address>[^>]*)> \d+ [+-]\d{4}", re.DOTALL)


@dataclass(frozen=True)
class Mail:
    """Author name and address, date as written, subject and message body."""

    name: str
    address: str
    date: str
    subject: str
    body: str


class UnreadableHeader(ValueError):
    """Git cannot read the header; ``field`` is the line it rejects, if known."""

    def __init__(self, message: str, field: str = "") -> None:
        super().__init__(message)
        self.field = field


@lru_cache(maxsize=64)
def read_mail(header: bytes) -> Mail:
    """Read the header as ``git am`` would. Raises UnreadableHeader if git cannot."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        done = git.run(
            folder, "mailinfo", "message", "patch",
            stdin=header, ok=(0, 1, 128),
        )  # fmt: skip
        if done.returncode:
            raise UnreadableHeader(_last_line(done.stderr), "Content-Type")
        rows = (row.partition(": ") for row in done.stdout.decode().splitlines())
        found = {name: value for name, colon, value in rows if colon}
        subject = found.get("Subject", "")
        text = f"{subject}\n\n{(folder / 'message').read_bytes().decode()}".encode()
        message = git.run(folder, "stripspace", stdin=text).stdout.decode()
        who = {
            "GIT_AUTHOR_NAME": found.get("Author", ""),
            "GIT_AUTHOR_EMAIL": found.get("Email", ""),
            "GIT_AUTHOR_DATE": found.get("Date", ""),
        }
        ident = git.run(folder, "var", "GIT_AUTHOR_IDENT", env=who, ok=(0, 128))
        match = _IDENT.fullmatch(ident.stdout.decode().rstrip("\n"))
        if ident.returncode or match is None:
            error = _last_line(ident.stderr)
            raise UnreadableHeader(error, "Date" if "date" in error else "From")
    return Mail(
        match["name"],
        match["address"],
        found.get("Date", ""),
        subject,
        message.partition("\n\n")[2].rstrip("\n"),
    )


def _last_line(output: bytes) -> str:
    lines = output.decode(errors="replace").strip().splitlines()
    return lines[-1].removeprefix("fatal: ") if lines else "git gave no reason"
