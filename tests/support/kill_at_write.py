"""Runs a verb of an overlay and kills it (-9) at a write."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

from support.forks import forked

_CHANGES = {"os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.chmod", "os.truncate"}


def kill_at_write(root: Path, at: int, log: Path, verb: str, *arguments: str) -> int:
    """Run the verb in a process of its own and kill it at its ``at``th write below
    ``root``; with 0 it ends by itself, and ``log`` has the number of writes. Return its
    exit code (-9 if killed)."""
    script = root / "scripts" / f"{verb}.py"
    done = forked(script, arguments, first=lambda: _kill_at(str(root), at, log))
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode


def _kill_at(root: str, at: int, log: Path) -> None:
    """Make this process end at that write."""
    done = 0

    def hook(kind: str, details: tuple[Any, ...]) -> None:
        nonlocal done
        writes = kind == "open" and (details[2] or 0) & (os.O_WRONLY | os.O_RDWR)
        if not (writes or kind in _CHANGES):
            return
        names = (str, bytes, os.PathLike)
        named = [os.fsdecode(one) for one in details[:2] if isinstance(one, names)]
        if not any(name.startswith(root) for name in named):
            return
        done += 1
        if done == at:
            if writes:
                # The state after opening a file in place: it exists and is empty.
                os.close(os.open(details[0], details[2] | os.O_CLOEXEC, 0o644))
            os.kill(os.getpid(), signal.SIGKILL)
        with log.open("w", encoding="utf-8") as file:
            file.write(str(done))

    # Compiled files would be writes too.
    sys.dont_write_bytecode = True
    sys.addaudithook(hook)
