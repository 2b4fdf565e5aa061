"""Runs a verb as a process of its own that is forked, not started.

A verb's imports take a quarter of a second and PyTorch's several. Here they are made
once: the fork has them, and everything else of its own.
"""

from __future__ import annotations

import importlib.util
import os
import runpy
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO, NoReturn

from xscale import liveness
from xscale.numeric.client import Worker


def forked(
    script: Path, arguments: Sequence[str], cwd: Path | None
) -> subprocess.CompletedProcess[str]:
    """Run a program with its output captured, as ``subprocess.run`` does."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        if (pid := os.fork()) == 0:
            _become(script, arguments, cwd, out, err)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        said = []
        for stream in (out, err):
            stream.seek(0)
            said.append(stream.read().decode())
    return subprocess.CompletedProcess([str(script), *arguments], code, *said)


def start_worker() -> None:
    """Start the process that runs a tree's sites, if it can run; forks use it in
    turn."""
    if importlib.util.find_spec("torch") and importlib.util.find_spec("triton"):
        # Its first message must not wait for a fork.
        assert liveness.worker().about


def _become(
    script: Path,
    arguments: Sequence[str],
    cwd: Path | None,
    out: IO[bytes],
    err: IO[bytes],
) -> NoReturn:
    code: object = 1
    try:
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(out.fileno(), 1)
        os.dup2(err.fileno(), 2)
        sys.stdin = open(0, encoding="utf-8")  # noqa: SIM115
        sys.stdout = open(1, "w", encoding="utf-8")  # noqa: SIM115
        sys.stderr = open(2, "w", encoding="utf-8", buffering=1)  # noqa: SIM115
        if cwd is not None:
            os.chdir(cwd)
        # It is a child of the parent, which alone can wait for it.
        setattr(Worker, "alive", True)  # noqa: B010
        sys.argv = [str(script), *arguments]
        runpy.run_path(str(script), run_name="__main__")
        code = 0
    except SystemExit as error:
        code = error.code
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code if isinstance(code, int) else int(code is not None))
