"""Parsing untrusted sources with Python's parser.

It raises more than SyntaxError: brackets nested ten thousand deep raise RecursionError
or MemoryError, and null bytes raise ValueError in some versions. Here all of these
become SyntaxError.
"""

from __future__ import annotations

import ast
import gc
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from types import CodeType

_TOO_DEEP = "nested too deeply for Python's parser"


def parsed(source: bytes | str, path: str = "<unknown>") -> ast.Module:
    """The syntax tree. Raises SyntaxError if this Python cannot parse the source."""
    try:
        with warnings.catch_warnings():
            # Warnings about upstream's escape sequences are not ours to show.
            warnings.simplefilter("ignore")
            with _without_collection():
                return ast.parse(source, path)
    except ValueError as error:
        raise SyntaxError(str(error)) from error
    except (RecursionError, MemoryError) as error:
        raise SyntaxError(_TOO_DEEP) from error


@contextmanager
def _without_collection() -> Iterator[None]:
    """A syntax tree is many thousand objects, none of them garbage: the collector
    would look at all objects of the process again and again, which takes three times
    as long as parsing."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


@lru_cache(maxsize=16)
def shared(source: bytes) -> ast.Module:
    """The same, for reading only: equal sources give the same tree. Several readers
    look at a file one after the other, and parsing is most of their work."""
    return parsed(source)


def compiled(source: bytes, path: str) -> CodeType:
    """The code. Raises SyntaxError if this Python cannot compile the source."""
    try:
        code: CodeType = compile(source, path, "exec", dont_inherit=True)
        return code
    except ValueError as error:
        raise SyntaxError(str(error)) from error
    except (RecursionError, MemoryError) as error:
        raise SyntaxError(_TOO_DEEP) from error


def syntax_error(source: bytes) -> SyntaxError | None:
    """The error that the source does not compile with; None if it compiles."""
    try:
        compiled(source, "<unknown>")
    except SyntaxError as error:
        return error
    return None
