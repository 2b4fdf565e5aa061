"""The header of a patch, as git reads it.

``git am`` takes author, date, subject and message from a patch by rules of its own: it
drops tags in brackets, prefers a ``From:`` in the body, takes text without a stated
encoding for UTF-8 and reads dates of many forms. A reader of ours would differ
somewhere, and would make another commit. So git reads it: ``git mailinfo``, then
``git stripspace`` for the message and ``git var`` for the author, as ``am`` does.
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
    """Author's name and address, date as it is written, subject and message body."""

    name: str
    address: str
    date: str
    subject: str
    body: str


class NoMail(ValueError):
    """Git cannot read it; ``field`` is the header line that it fails at, if known."""

    def __init__(self, said: str, field: str = "") -> None:
        super().__init__(said)
        self.field = field


@lru_cache(maxsize=64)
def read_mail(header: bytes) -> Mail:
    """What ``git am`` would commit. Raises NoMail where git cannot read it."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        done = git.run(
            folder, "mailinfo", "message", "patch",
            stdin=header, ok=(0, 1, 128),
        )  # fmt: skip
        if done.returncode:
            raise NoMail(_said(done.stderr), "Content-Type")
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
            said = _said(ident.stderr)
            raise NoMail(said, "Date" if "date" in said else "From")
    return Mail(
        match["name"],
        match["address"],
        found.get("Date", ""),
        subject,
        message.partition("\n\n")[2].rstrip("\n"),
    )


def _said(words: bytes) -> str:
    lines = words.decode(errors="replace").strip().splitlines()
    return lines[-1].removeprefix("fatal: ") if lines else "git gives no reason"
