"""JSON and TOML: read from anybody, written for any reader.

msgspec's own errors are not all that a document can cause: one nested ten thousand
deep is a RecursionError, a TOML number of five thousand digits a plain ValueError, and
a path that is not UTF-8 cannot be encoded. Here each of them is an error of the
document, or a document.
"""

from __future__ import annotations

from typing import Any, TypeVar, overload

import msgspec

T = TypeVar("T")
_LONGEST = 400


@overload
def from_json(data: bytes | str, kind: type[T]) -> T: ...
@overload
def from_json(data: bytes | str, kind: object) -> Any: ...
def from_json(data: bytes | str, kind: Any) -> Any:
    """A JSON document of this type. Raises msgspec.DecodeError for anything else."""
    try:
        return msgspec.json.decode(data, type=kind)
    except RecursionError as error:
        raise msgspec.DecodeError("it is nested too deeply") from error
    except msgspec.DecodeError as error:
        # It may hold a name of the document's, of any length.
        if len(said := str(error)) <= _LONGEST:
            raise
        raise type(error)(f"{said[:_LONGEST]}...") from None


def from_toml(data: bytes, kind: type[T]) -> T:
    """A TOML document of this type. Raises msgspec.DecodeError for anything else."""
    try:
        return msgspec.toml.decode(data, type=kind)
    except RecursionError as error:
        raise msgspec.DecodeError("it is nested too deeply") from error
    except msgspec.DecodeError:
        raise
    except ValueError as error:
        raise msgspec.DecodeError(str(error)) from error


def to_json(value: object, sort: bool = False) -> bytes:
    """A JSON document as msgspec lays one out, one value a line. Bytes of a name that
    are not UTF-8 stand in it as ``\\udcff``, spelt out."""
    order = "sorted" if sort else None
    return msgspec.json.format(_encoded(value, order))


def to_json_line(value: object) -> bytes:
    """The same in one line, without its end."""
    return _encoded(value, None)


def _encoded(value: object, order: Any) -> bytes:
    try:
        return msgspec.json.encode(value, order=order)
    except UnicodeEncodeError:
        return msgspec.json.encode(
            _escape_surrogates(msgspec.to_builtins(value)), order=order
        )


def _escape_surrogates(value: Any) -> Any:
    """Lone surrogates of all strings escaped; such are bytes of undecodable names."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode("utf-8")
    if isinstance(value, dict):
        return {
            _escape_surrogates(key): _escape_surrogates(one)
            for key, one in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [_escape_surrogates(one) for one in value]
    return value
