"""Reading untrusted JSON and TOML, and writing JSON.

A document can cause more errors than msgspec's own: nesting ten thousand levels deep
raises RecursionError, a TOML number of five thousand digits ValueError, and a path
that is not UTF-8 cannot be encoded. The readers turn the first two into DecodeError;
the writers escape such paths.
"""

from __future__ import annotations

from typing import Any, TypeVar, overload

import msgspec

T = TypeVar("T")
_MAX_LENGTH = 400


@overload
def from_json(data: bytes | str, kind: type[T]) -> T: ...
@overload
def from_json(data: bytes | str, kind: object) -> Any: ...
def from_json(data: bytes | str, kind: Any) -> Any:
    """Decode a JSON document of this type. Raises msgspec.DecodeError otherwise."""
    try:
        return msgspec.json.decode(data, type=kind)
    except RecursionError as error:
        raise msgspec.DecodeError("it is nested too deeply") from error
    except msgspec.DecodeError as error:
        # The message may quote a name from the document, of any length.
        if len(message := str(error)) <= _MAX_LENGTH:
            raise
        raise type(error)(f"{message[:_MAX_LENGTH]}...") from None


def from_toml(data: bytes, kind: type[T]) -> T:
    """Decode a TOML document of this type. Raises msgspec.DecodeError otherwise."""
    try:
        return msgspec.toml.decode(data, type=kind)
    except RecursionError as error:
        raise msgspec.DecodeError("it is nested too deeply") from error
    except msgspec.DecodeError:
        raise
    except ValueError as error:
        raise msgspec.DecodeError(str(error)) from error


def to_json(value: object, sort: bool = False) -> bytes:
    """Encode as JSON, one value a line. A byte of a name that is not UTF-8 is written
    as the text ``\\udcff``."""
    order = "sorted" if sort else None
    return msgspec.json.format(_encoded(value, order))


def to_json_line(value: object) -> bytes:
    """Encode as JSON in one line, without a line end."""
    return _encoded(value, None)


def _encoded(value: object, order: Any) -> bytes:
    try:
        return msgspec.json.encode(value, order=order)
    except UnicodeEncodeError:
        return msgspec.json.encode(
            _escape_surrogates(msgspec.to_builtins(value)), order=order
        )


def _escape_surrogates(value: Any) -> Any:
    """Escape lone surrogates in all strings: they are bytes of undecodable names."""
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
