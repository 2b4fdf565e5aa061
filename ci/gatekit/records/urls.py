"""The URL of a server, as a user names it."""

from __future__ import annotations

from urllib.parse import urlsplit

from overlaykit.core.errors import InputError


def checked(option: str, text: str) -> str:
    """Without a slash at its end. Raises InputError for what no client could ask."""
    try:
        parts = urlsplit(text)
        # Reading the port is what finds one that is no number, or too large.
        bad = parts.scheme not in ("http", "https") or parts.port == 0
        bad = bad or not parts.hostname or text.split() != [text]
    except ValueError:
        bad = True
    if bad:
        raise InputError(f"{option} is an http:// or https:// URL, not {text!r}")
    return text.rstrip("/")
