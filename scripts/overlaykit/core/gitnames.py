"""The checks for commit ids, tags and repository addresses that come from outside.

They become arguments of git, and a manifest or a request may be somebody else's work.
A repository's address may name a transport that runs a command (``ext::``), an option
(``--upload-pack=...``), or a host that ssh would read as one. Credentials in an address
would be committed and printed.
"""

from __future__ import annotations

import re

from overlaykit.core.errors import Finding, InputError

_COMMIT = re.compile(r"[0-9a-f]{40}")
_SHORT = re.compile(r"[0-9a-fA-F]{4,64}")
# A part of what git allows: no `..`, no `@{`, no part that starts with a dot or a dash.
_TAG = re.compile(r"(?!.*(\.\.|\.lock(/|$)|\.(/|$)))\w[\w.+-]*(/\w[\w.+-]*)*", re.ASCII)
_URL = re.compile(
    r"(https://[A-Za-z0-9][A-Za-z0-9.-]*(:[0-9]{1,5})?"
    r"|ssh://([A-Za-z0-9._-]+@)?[A-Za-z0-9][A-Za-z0-9.-]*(:[0-9]{1,5})?"
    r"|file:///[A-Za-z0-9._~%+,=@-]+)(/[A-Za-z0-9._~%+,=@-]+)*/?"
)


def is_commit(text: str) -> bool:
    """Whether the text is a full commit id."""
    return _COMMIT.fullmatch(text) is not None


def check_commit(text: str) -> None:
    """Raises InputError unless the text is a full commit id.

    A short id would have to be looked up, and may mean another commit tomorrow.
    """
    if is_commit(text):
        return
    found, step = text, "write the 40 digits 0-9 and a-f that git prints"
    if _SHORT.fullmatch(text) and len(text) < 40:
        found = f"{len(text)} digits"
        step = f"write all 40: git rev-parse '{text}^{{commit}}' in a clone"
    finding = Finding("is not a full commit id", expected="40 digits 0-9 and a-f",
                      found=found, next_step=step)  # fmt: skip
    raise InputError(f"{text!r} is not a full commit id", (finding,))


def check_tag(text: str) -> None:
    """Raises InputError unless the text is the name of a tag."""
    if len(text) > 200 or not _TAG.fullmatch(text):
        raise InputError(f"{text!r} is not the name of a tag")


def check_repository(url: str) -> None:
    """Raises InputError unless this is an address that git fetches without running a
    command that it names, and without credentials in it."""
    if len(url) > 1000 or not _URL.fullmatch(url):
        raise InputError(
            f"{url!r} is not an address of the form https://HOST/PATH, "
            "ssh://USER@HOST/PATH or file:///PATH"
        )
