"""Python's own parser, for sources that anybody may have written.

What it cannot take is more than a SyntaxError: brackets ten thousand deep end it with a
RecursionError or a MemoryError, depending on what they hold, and null bytes with a
ValueError in some versions. Here all of them say that the source does not parse.
"""

from __future__ import annotations

import ast
import warnings
from types import CodeType

_TOO_DEEP = "nested too deeply for Python's parser"


def parsed(source: bytes | str, path: str = "<unknown>") -> ast.Module:
    """The syntax tree. Raises SyntaxError for what this Python cannot parse."""
    try:
        with warnings.catch_warnings():
            # Upstream's escape sequences are upstream's business.
            warnings.simplefilter("ignore")
            return ast.parse(source, path)
    except ValueError as error:
        raise SyntaxError(str(error)) from error
    except (RecursionError, MemoryError) as error:
        raise SyntaxError(_TOO_DEEP) from error


def compiled(source: bytes, path: str) -> CodeType:
    """The code. Raises SyntaxError for what this Python cannot compile."""
    try:
        code: CodeType = compile(source, path, "exec", dont_inherit=True)
        return code
    except ValueError as error:
        raise SyntaxError(str(error)) from error
    except (RecursionError, MemoryError) as error:
        raise SyntaxError(_TOO_DEEP) from error


def fault(source: bytes) -> SyntaxError | None:
    """Why it does not compile, and where; None where it does."""
    try:
        compiled(source, "<unknown>")
    except SyntaxError as error:
        return error
    return None
