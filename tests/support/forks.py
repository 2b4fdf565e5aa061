"""Runs a verb as a process of its own that is forked, not started.

A verb's imports take a quarter of a second and PyTorch's several. Here they are made
once: the fork has them, and everything else of its own.
"""

from __future__ import annotations

import gc
import importlib.util
import os
import runpy
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import IO, NoReturn

from overlaykit import cli
from overlaykit.core import effects
from overlaykit.series.carried import load_overlay
from overlaykit.series.lock import lock_target
from overlaykit.series.mail import read_mail
from overlaykit.sources.bases import fetch_base
from xscale.doctor import producers
from xscale.numeric import client
from xscale.numeric.device import read_variables

ROOT = Path(__file__).resolve().parents[2]
RUN_TREES = {"doctor", "drift", "rebase"}
"""The verbs that run a tree's sites; `verify` does it on request."""
MAKE_LOCKS = {"lock", "rebase", "refresh"}
"""The verbs that apply the series to its bases and parse each file at each step."""
_USUAL = read_variables(os.environ)


def forked(
    script: Path,
    arguments: Sequence[str],
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a verb with its output captured, as ``subprocess.run`` does. ``env`` is added
    to the environment. The verb works on the overlay that it is in.

    The process that runs a tree's sites is shared, unless a test gives it another
    environment.
    """
    # Its workers are started, not forked: they would use another overlay's modules.
    assert script.stem != "drift" or (script.parent / "upstream").is_dir()
    shares = read_variables({**os.environ, **(env or {})}) == _USUAL
    if shares and (script.stem in RUN_TREES or "--numeric" in arguments):
        _start_worker()
    if script.stem in MAKE_LOCKS:
        _read_series()
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        with warnings.catch_warnings():
            # pytest-xdist has threads; they hold no lock that a verb waits for.
            warnings.simplefilter("ignore", DeprecationWarning)
            pid = os.fork()
        if pid == 0:
            # The fork must not look at all that the test's process has.
            gc.freeze()
            if "PATH" in (env or {}):
                # Another git would be asked.
                read_mail.cache_clear()
            if shares:
                _share()
            else:
                client._workers.clear()
            _become(script, arguments, cwd, env or {}, out, err)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        said = []
        for stream in (out, err):
            stream.seek(0)
            said.append(stream.read().decode())
    return subprocess.CompletedProcess([str(script), *arguments], code, *said)


def _start_worker() -> None:
    """Start the process that runs a tree's sites, if it can run; forks use it in
    turn."""
    if importlib.util.find_spec("torch") and importlib.util.find_spec("triton"):
        # Its first message must not wait for a fork.
        assert client.worker().about


@cache
def _read_series() -> None:
    """Parse what the overlay's own lock is about. The parser remembers contents, so a
    fork parses only those that a test has changed."""
    for carried in load_overlay(ROOT).values():
        lock_target(
            carried.target,
            fetch_base(ROOT, carried),
            carried.lock.dist,
            carried.series,
            carried.new_files,
            carried.lock.commit,
        )


def _share() -> None:
    """The process is a child of the parent, which alone can wait for it. One that could
    not start is not shared."""
    for key, worker in [*client._workers.items()]:
        if worker._process.stdout is None or worker._process.stdout.closed:
            del client._workers[key]
        else:
            worker._process.poll = lambda: None  # type: ignore[method-assign]


def _become(
    script: Path,
    arguments: Sequence[str],
    cwd: Path | None,
    env: Mapping[str, str],
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
        os.environ.update(env)
        if cwd is not None:
            os.chdir(cwd)
        # Those of the test's own process.
        effects._effects.clear()
        for module in (cli, producers):
            setattr(module, "ROOT", script.resolve().parents[1])  # noqa: B010
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
