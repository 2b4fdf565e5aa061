"""Checks a server's URL from the command line."""

from __future__ import annotations

from urllib.parse import urlsplit

from overlaykit.core.errors import InputError


def checked(option: str, text: str) -> str:
    """The URL without its final slash. Raises InputError if no client could use it."""
    try:
        parts = urlsplit(text)
        # Reading the port raises ValueError if it is not a number or is too large.
        bad = parts.scheme not in ("http", "https") or parts.port == 0
        bad = bad or not parts.hostname or text.split() != [text]
    except ValueError:
        bad = True
    if bad:
        raise InputError(f"{option} must be an http:// or https:// URL, not {text!r}")
    return text.rstrip("/")
