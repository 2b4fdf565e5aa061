"""Reading a record of JSON: what it lacks is said by its field; nothing is supplied.

Readers of JSON differ in what they let pass. A key that is there twice has the first
value for one reader and the last for another, and a default for a member that is not
there is a reading of its own. Such a record is refused; the refusal names the field,
what is expected there and what was found.
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
    """Why a text is not the record that it should be. ``name`` is the field's, empty
    where the text is no record at all."""

    what: str
    name: str = ""
    expected: str = ""
    found: str = ""

    def __str__(self) -> str:
        """In a line, which says all."""
        if not self.name:
            return self.what
        return f'"{self.name}": expected {self.expected}, found {self.found}'

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
        """``head`` says which file is not what; the field and its fault follow."""
        return InputError(f"{head}: {self}", (self.finding(path, line, step),))


def decoded(data: bytes, kind: type[T], needs: Mapping[str, str] | None = None) -> T:
    """A JSON document of this type. ``needs`` says of a field what is expected there,
    with its unit. Raises Misfit."""
    try:
        record = from_json(data, kind)
        json.loads(data, object_pairs_hook=once)
    # Numbers too long for Python are ValueErrors of their own.
    except (ValueError, RecursionError) as error:
        raise misfit(error, needs) from error
    return record


def with_words(text: str, kind: type[T], needs: Mapping[str, str] | None = None) -> T:
    """The same of a text with Infinity and NaN, which Python writes and which are not
    JSON. Raises Misfit."""
    try:
        return msgspec.convert(json.loads(text, object_pairs_hook=once), kind)
    except (ValueError, OverflowError, RecursionError) as error:
        raise misfit(error, needs) from error


def misfit(error: Exception, needs: Mapping[str, str] | None = None) -> Misfit:
    """The decoder's words, the field first."""
    if isinstance(error, Misfit):
        return error
    said = str(error)[:_LONGEST]
    if found := _MISSING.fullmatch(said):
        name = f"{found[2]}.{found[1]}" if found[2] else found[1]
        what = f'has no "{found[1]}"' + (f' in its "{found[2]}"' if found[2] else "")
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


def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """For ``json.loads``. Raises Misfit for a key that is there twice."""
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            shown = key if len(key) <= _LONGEST else f"{key[:_LONGEST]}..."
            what = f'the key "{shown}" is there twice'
            raise Misfit(what, shown, "one value", "two")
        found[key] = value
    return found
