"""Check that a text is one JSON value that all readers understand alike.

JSON readers differ in what they accept. For a duplicate key, one reader takes the first
value and another the last; some accept ``NaN`` and control characters in strings, which
are not JSON. A trace that only some readers accept is not evidence.
"""

from __future__ import annotations

import json
import re
from typing import Any, NoReturn

from gatekit.records.fields import Misfit, unique_keys
from overlaykit.core.errors import Finding, InputError

_BYTE = re.compile(r"\(byte (\d+)\)")
_SHOWN, _CONTROL = 12, 0x20


def loads(text: bytes) -> Any:
    """Raises InputError for a duplicate key, or if the text is not JSON."""
    try:
        return json.loads(text, object_pairs_hook=unique_keys, parse_constant=_constant)
    except Misfit as error:
        raise InputError(error.what) from error
    except ValueError as error:
        raise InputError(f"not valid JSON: {error}") from error
    except RecursionError as error:
        raise InputError("not valid JSON: nested too deeply") from error


def _constant(word: str) -> NoReturn:
    raise InputError(f"not valid JSON: {word}")


def fault(text: bytes, error: Exception) -> Finding:
    """The fault of an invalid JSON text, with its position. ``error`` is the decoder's
    and counts bytes."""
    if "truncated" in str(error):
        return Finding("the JSON ends early: truncated or still being written")
    if (at := _at(text, error)) is None:
        return Finding(f"not valid JSON: {error}")
    line, start = text.count(b"\n", 0, at) + 1, text.rfind(b"\n", 0, at) + 1
    what = _BYTE.sub("", str(error)).removeprefix("JSON is malformed: ").strip()
    step = None
    if at < len(text) and text[at] < _CONTROL:
        what = f"control character 0x{text[at]:02x}"
        step = "rewrite it: json.dump(json.load(file, strict=False), other)"
    what = f"not valid JSON: {what} at line {line}, column {at - start + 1}"
    near = text[at : at + _SHOWN].decode(errors="replace")
    return Finding(what, line=line, found=repr(near), next_step=step)


def _at(text: bytes, error: Exception) -> int | None:
    if found := _BYTE.search(str(error)):
        return int(found[1])
    try:
        text.decode()
    except UnicodeDecodeError as undecodable:
        return undecodable.start
    return None
