"""Reads JSON records strictly: no field may be missing, duplicated or of another type.

JSON readers differ in what they accept. For a duplicate key, one reader takes the first
value and another the last; for a missing field, one fills in a default. Such a record
is refused, and the error names the field, what is expected there and what was found.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from overlaykit.core.documents import from_json
from overlaykit.core.errors import Finding, InputError

T = TypeVar("T")
_MISSING = re.compile(r"Object missing required field `(.+?)`(?: - at `\$\.(.+)`)?")
_BELOW = re.compile(r"Expected `(.+)` (.+) - at `\$\.(.+)`")
_WRONG = re.compile(r"Expected `(.+)`, got `(.+)` - at `\$\.(.+)`")
_PLACE = re.compile(r"(.+) - at `(?:key in )?\$\.?(.*)`", re.DOTALL)
_LONGEST = 400


@dataclass(eq=False)
class Misfit(Exception):
    """Why a text does not fit its record type. ``name`` is the field, or empty if the
    text is not a record at all."""

    what: str
    name: str = ""
    expected: str = ""
    found: str = ""

    def __str__(self) -> str:
        """The whole error in one line."""
        if not self.name:
            return self.what
        return contradiction(self.name, self.expected, self.found)

    def finding(self, path: Path, line: int | None, step: str) -> Finding:
        return Finding(
            self.what,
            path=str(path),
            line=line,
            expected=self.expected or None,
            found=self.found or None,
            next_step=step,
        )

    def refusal(
        self, head: str, path: Path, step: str, line: int | None = None
    ) -> InputError:
        """An InputError: ``head`` names the file, then the field and its fault."""
        return InputError(f"{head}: {self}", (self.finding(path, line, step),))


def contradiction(field: str, expected: object, found: object) -> str:
    """A field, what it should be and what it is, in one line."""
    return f'"{field}": expected {expected}, found {found}'


def decoded(data: bytes, kind: type[T], needs: Mapping[str, str] | None = None) -> T:
    """Decode a JSON document as this type. ``needs`` describes, by field, the expected
    value and its unit. Raises Misfit."""
    try:
        record = from_json(data, kind)
        json.loads(data, object_pairs_hook=unique_keys)
    # Numbers too long for Python are ValueErrors of their own.
    except (ValueError, RecursionError) as error:
        raise misfit(error, needs) from error
    return record


def decoded_with_nan(
    text: str, kind: type[T], needs: Mapping[str, str] | None = None
) -> T:
    """As :func:`decoded`, but also accepts Infinity and NaN, which Python writes
    although they are not JSON. Raises Misfit."""
    try:
        return msgspec.convert(json.loads(text, object_pairs_hook=unique_keys), kind)
    except (ValueError, OverflowError, RecursionError) as error:
        raise misfit(error, needs) from error


def misfit(error: Exception, needs: Mapping[str, str] | None = None) -> Misfit:
    """The decoder's error as a Misfit, which names the field first."""
    if isinstance(error, Misfit):
        return error
    said = str(error)[:_LONGEST]
    if found := _MISSING.fullmatch(said):
        name = f"{found[2]}.{found[1]}" if found[2] else found[1]
        what = f'has no "{found[1]}"' + (f' in "{found[2]}"' if found[2] else "")
        return Misfit(what, name, (needs or {}).get(name, "a value"), "no such field")
    if found := _WRONG.fullmatch(said):
        what = f'"{found[3]}" is {found[2]}, not {found[1]}'
        wanted = (needs or {}).get(found[3], "")
        expected = f"{found[1]} ({wanted})" if wanted else found[1]
        return Misfit(what, found[3], expected, found[2])
    if found := _BELOW.fullmatch(said):
        what = f'"{found[3]}" is not {found[1]} {found[2]}'
        return Misfit(what, found[3], f"{found[1]} {found[2]}", "another value")
    if (found := _PLACE.fullmatch(said)) and found[2]:
        return Misfit(said, found[2], "a value of this record", found[1])
    return Misfit(said)


def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An ``object_pairs_hook`` for ``json.loads``. Raises Misfit for a duplicate
    key."""
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            shown = key if len(key) <= _LONGEST else f"{key[:_LONGEST]}..."
            what = f'the key "{shown}" appears twice'
            raise Misfit(what, shown, "one value", "two")
        found[key] = value
    return found
