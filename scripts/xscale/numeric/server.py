"""The worker process: reads jobs from standard input, writes results to standard
output.

Only ``client`` starts it. Output of libraries goes to standard error.
"""

from __future__ import annotations

import os
import pickle
import sys
from collections.abc import Callable
from typing import Any, BinaryIO

STAND_INS = "stood in"
"""The kind of message that names the packages with stand-ins; others are answers."""
_INSTALL = "pip install --group kernels"


class CannotRun(Exception):
    """(what, found, next step)"""


def main(device: str) -> None:
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    try:
        _send(answers, "ready", look_around(device))
        work = _worker(device)
        while True:
            try:
                job = pickle.load(sys.stdin.buffer)
            except EOFError:
                return
            for kind, value in work(*job):
                _send(answers, kind, value)
    except CannotRun as error:
        _send(answers, "failed", error.args)
    except BrokenPipeError:
        return


def look_around(device: str) -> dict[str, str]:
    """Return the versions; raise CannotRun if something is missing."""
    try:
        import torch
    except ImportError as error:
        raise CannotRun("PyTorch cannot be imported", str(error), _INSTALL) from error
    if not hasattr(torch, "float8_e4m3fn") or not hasattr(torch, "float8_e4m3fnuz"):
        raise CannotRun(
            "this PyTorch has no float8 types", f"torch {torch.__version__}", _INSTALL
        )
    try:
        import triton
    except ImportError as error:
        raise CannotRun("Triton cannot be imported", str(error), _INSTALL) from error
    if device == "cpu":
        try:
            import numpy  # noqa: F401
        except ImportError as error:
            found = f"{error}; Triton's interpreter needs it"
            raise CannotRun("NumPy cannot be imported", found, _INSTALL) from error
        name = "cpu, Triton's interpreter"
    elif not torch.cuda.is_available():
        raise CannotRun(
            "no GPU can be used",
            f"torch {torch.__version__}: torch.cuda.is_available() is False",
            "run with --device cpu",
        )
    else:
        name = torch.cuda.get_device_name()
    # A case is many small kernels: a second thread never has enough work, and several
    # workers with one thread per core slow each other down.
    torch.set_num_threads(1)
    versions = {"torch": str(torch.__version__), "triton": str(triton.__version__)}
    return {**versions, "device": name}


def _worker(device: str) -> Callable[..., Any]:
    import torch

    from xscale.numeric import compiler
    from xscale.numeric.engine import Engine
    from xscale.numeric.producers import Kernels

    compiler.postpone()
    known: dict[tuple[Any, ...], Kernels] = {}
    # The pristine tree of the last job, with its runs: the next one often has the same.
    base: Engine | None = None

    def work(tree: Any, aiter: Any, pristine: Any, cases: Any) -> Any:
        nonlocal base
        key = tuple(sorted(aiter.modules.items()))
        if key not in known:
            try:
                known[key] = Kernels(aiter, compiled=device != "cpu")
            except Exception as error:
                raise CannotRun(
                    f"AITER's Triton modules in {aiter.tree} cannot be imported",
                    f"{type(error).__name__}: {error}",
                    "use another AITER with --aiter",
                ) from error
        kernels = known[key]
        yield STAND_INS, kernels.stand_ins
        if base is None or (base.tree, base.kernels) != (pristine, kernels):
            base = Engine(pristine, kernels, device) if pristine is not None else None
        engine = Engine(tree, kernels, device, base)
        for case in cases:
            try:
                yield "outcome", engine.outcome(case)
            except torch.OutOfMemoryError as error:
                raise CannotRun(
                    f"out of memory on {device} at: {case}",
                    str(error).partition("\n")[0],
                    "free the device, or run with --device cpu",
                ) from error

    return work


def _send(stream: BinaryIO, kind: str, value: object) -> None:
    pickle.dump((kind, value), stream)
    stream.flush()


if __name__ == "__main__":
    main(sys.argv[1])
