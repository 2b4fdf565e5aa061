"""Runs a verb of ``ci/`` many times with its imports made once.

A process that has no threads and no sockets imports the modules and forks for every
run. Forks of the test's own process would hold the sockets of its servers open.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from support.forks import forked

_FOLDERS = [str(Path(__file__).resolve().parents[1])]
_FOLDERS += [str(Path(_FOLDERS[0]).parent / name) for name in ("scripts", "ci")]


class ForkServer:
    """A process with these modules loaded."""

    def __init__(self, *modules: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "support.fork_server", *modules],
            cwd=_FOLDERS[0],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(_FOLDERS)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(
        self, script: Path, arguments: Sequence[str]
    ) -> subprocess.CompletedProcess[str]:
        """Run a program with the caller's folder and environment, its output
        captured."""
        assert self._process.stdin and self._process.stdout
        asked = [str(script), list(arguments), str(Path.cwd()), dict(os.environ)]
        print(json.dumps(asked), file=self._process.stdin, flush=True)
        code, out, err = json.loads(self._process.stdout.readline())
        return subprocess.CompletedProcess([str(script), *arguments], code, out, err)

    def close(self) -> None:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()


def _serve(modules: Sequence[str]) -> None:
    for name in modules:
        importlib.import_module(name)
    for line in sys.stdin:
        script, arguments, folder, environment = json.loads(line)
        os.environ.clear()
        os.environ.update(environment)
        done = forked(Path(script), arguments, Path(folder))
        print(json.dumps([done.returncode, done.stdout, done.stderr]), flush=True)


if __name__ == "__main__":
    _serve(sys.argv[1:])
