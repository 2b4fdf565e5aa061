"""Keeps PyTorch's compiler out of a worker that compiles nothing. Worker side.

Importing ``torch._dynamo`` takes longer than the rest of PyTorch, and two things import
it that do not compile: the first operation under a dispatch mode, only to tell the
compiler to leave the mode alone, and ``assume_constant_result``, to set an attribute.
Once something else has imported it, both do here what PyTorch does.
"""

from __future__ import annotations

import sys
from typing import Any

import torch

_DYNAMO = "torch._dynamo"


def postpone() -> None:
    """Let ``assume_constant_result`` mark functions without the import."""
    real = torch.compiler.assume_constant_result

    def assume_constant_result(function: Any) -> Any:
        if _DYNAMO in sys.modules:
            return real(function)
        # What Dynamo looks for when it compiles a call of the function.
        function._dynamo_marked_constant = True
        return function

    torch.compiler.assume_constant_result = assume_constant_result


def without_import(mode: type) -> None:
    """Let a dispatch mode work without the import."""
    kept_out = mode.__torch_dispatch__  # type: ignore[attr-defined]
    plain = getattr(kept_out, "__wrapped__", kept_out)

    def dispatch(
        self: Any, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        how = kept_out if _DYNAMO in sys.modules else plain
        return how(self, func, types, args, kwargs)

    mode.__torch_dispatch__ = dispatch  # type: ignore[attr-defined]
