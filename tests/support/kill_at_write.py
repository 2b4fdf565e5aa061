"""Runs a verb of an overlay and kills it: ``kill_at_write.py ROOT N LOG VERB ARGS...``.

The process is killed (-9) at its Nth write below ROOT; with N = 0 it ends by itself,
and LOG has the number of writes.
"""

from __future__ import annotations

import os
import runpy
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

_CHANGES = {"os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.chmod", "os.truncate"}


def kill_at_write(root: Path, at: int, log: Path, verb: str, *arguments: str) -> int:
    """Run the verb in a process of its own; return its exit code (-9 if killed)."""
    words = [__file__, str(root), str(at), str(log), verb, *arguments]
    # Compiled files would be writes too.
    done = subprocess.run(
        [sys.executable, *words], capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
    )  # fmt: skip
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode


def _main(root: str, at: int, log: str, verb: str, *arguments: str) -> None:
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
        with Path(log).open("w", encoding="utf-8") as file:
            file.write(str(done))

    sys.argv = [f"{root}/scripts/{verb}.py", *arguments]
    sys.path[0] = f"{root}/scripts"
    sys.addaudithook(hook)
    runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    _main(sys.argv[1], int(sys.argv[2]), *sys.argv[3:])
