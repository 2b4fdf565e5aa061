"""Real apply.py processes that are killed, stopped or disturbed at a chosen write.

The product has no code for this. A process is forked with the modules already loaded;
an audit hook (PEP 578) counts its changes to the tree before they happen, and causes
the trouble at the chosen count. Forks start in milliseconds, so every write can be
tried.
"""

from __future__ import annotations

import gc
import json
import os
import runpy
import shutil
import signal
import stat
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import overlaykit.applying.transaction
import overlaykit.cli
import overlaykit.planning.landing

# Loaded here once, for all the processes that are forked from this one.
import overlaykit.sources.bases
import overlaykit.trees.locking

ROOT = Path(__file__).resolve().parents[2]
APPLY = ROOT / "scripts" / "apply.py"
FOLDER = overlaykit.trees.locking.FOLDER
GIT = "subprocess.Popen"
"""The event of starting a git process; counted alone, and only on request."""
VERBS: tuple[tuple[str, ...], ...] = ((), ("--unapply",), ("--status",))

_CHANGES = {
    "os.chmod",
    "os.chown",
    "os.link",
    "os.mkdir",
    "os.remove",
    "os.rename",
    "os.rmdir",
    "os.symlink",
    "os.truncate",
    "os.utime",
}
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND

Mischief = Callable[[], object]


@dataclass(frozen=True)
class Done:
    """How a process ended: its exit code, or minus the signal that killed it."""

    code: int
    out: str
    err: str
    writes: int

    @property
    def report(self) -> dict[str, Any]:
        """Its report with ``--json``."""
        return dict(json.loads(self.out))

    @property
    def text(self) -> str:
        return self.out + self.err


@contextmanager
def memory_folder() -> Iterator[Path]:
    """A folder that any user may enter, in memory if possible: thousands of fsyncs
    would wear a disk and prove nothing more."""
    memory = Path("/dev/shm")
    base = memory if memory.is_dir() and os.access(memory, os.W_OK) else None
    folder = Path(mkdtemp(prefix="overlay-faults-", dir=base))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def copy(tree: Path, to: Path) -> Path:
    """Replace ``to`` by a fresh copy, with times and modes."""
    shutil.rmtree(to, ignore_errors=True)
    shutil.copytree(tree, to, symlinks=True)
    return to


Contents = dict[str, tuple[int, bytes]]


def contents(tree: Path) -> Contents:
    """Modes and bytes of all files, modes of all folders."""
    found = {}
    for place in sorted(tree.rglob("*")):
        status = place.lstat()
        data = place.read_bytes() if stat.S_ISREG(status.st_mode) else b""
        found[place.relative_to(tree).as_posix()] = (status.st_mode, data)
    return found


def times(tree: Path) -> dict[str, int]:
    """When each file was last written."""
    return {
        place.relative_to(tree).as_posix(): place.stat().st_mtime_ns
        for place in tree.rglob("*")
        if place.is_file()
    }


class Child:
    """A forked process; :meth:`wait` for its end, or :meth:`stopped` for a pause."""

    def __init__(self, work: Callable[[Child], None], folder: Path) -> None:
        self._log = Path(mkdtemp(prefix="log-", dir=folder))
        (self._log / "writes").write_text("0")
        # Otherwise both processes would flush the current buffers.
        sys.stdout.flush()
        sys.stderr.flush()
        gc.freeze()
        self.pid = os.fork()
        if self.pid == 0:
            code = 70
            try:
                self._become()
                work(self)
                code = 0
            except SystemExit as end:
                code = int(end.code or 0)
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)

    def _become(self) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        for number, name in ((1, "out"), (2, "err")):
            os.dup2(os.open(self._log / name, os.O_WRONLY | os.O_CREAT, 0o666), number)
        sys.stdin = open(0, closefd=False)  # noqa: SIM115
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
        sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115
        # Opened now: later the disk, the file size or a permission may be limited.
        self.counter = os.open(self._log / "writes", os.O_WRONLY)

    def count(self, writes: int) -> None:
        """Record how many writes were begun, so that it survives a kill."""
        os.pwrite(self.counter, str(writes).encode(), 0)

    def stopped(self) -> bool:
        """Wait until it stops (True) or ends (False; then :meth:`wait` is over)."""
        _, status = os.waitpid(self.pid, os.WUNTRACED)
        if os.WIFSTOPPED(status):
            return True
        self._status = status
        return False

    def wait(self) -> Done:
        status = getattr(self, "_status", None)
        if status is None:
            _, status = os.waitpid(self.pid, 0)
        done = Done(
            os.waitstatus_to_exitcode(status),
            (self._log / "out").read_text(encoding="utf-8"),
            (self._log / "err").read_text(encoding="utf-8"),
            int((self._log / "writes").read_text()),
        )
        shutil.rmtree(self._log)
        return done


def start(
    folder: Path,
    *arguments: str | Path,
    at: int | None = None,
    mischief: Mischief | None = None,
    first: Mischief | None = None,
    event: str | None = None,
) -> Child:
    """Start apply.py. ``mischief`` happens just before its write number ``at``, or,
    with ``event``, before the write of that kind and number. ``first`` happens
    before it starts."""

    def work(child: Child) -> None:
        if first is not None:
            first()
        done = 0

        def hook(name: str, details: tuple[Any, ...]) -> None:
            nonlocal done
            counts = name == GIT if event == GIT else _writes(name, details)
            if not counts or name != (event or name):
                return
            done += 1
            child.count(done)
            if done == at and mischief is not None:
                mischief()

        sys.argv = [str(APPLY), *map(str, arguments)]
        sys.addaudithook(hook)
        runpy.run_path(str(APPLY), run_name="__main__")

    return Child(work, folder)


def apply(
    folder: Path,
    *arguments: str | Path,
    at: int | None = None,
    mischief: Mischief | None = None,
    first: Mischief | None = None,
    event: str | None = None,
) -> Done:
    """Run apply.py to its end; see :func:`start`."""
    return start(
        folder, *arguments, at=at, mischief=mischief, first=first, event=event
    ).wait()


def send(number: signal.Signals) -> Mischief:
    """A process that sends a signal to itself."""
    return lambda: os.kill(os.getpid(), number)


KILL = send(signal.SIGKILL)


def count_writes(folder: Path, tree: Path, *arguments: str) -> int:
    """How many writes apply.py makes: the number of points at which to disturb it."""
    done = apply(folder, *arguments, copy(tree, folder / "counted"))
    shutil.rmtree(folder / "counted")
    return done.writes


def _writes(name: str, details: Sequence[Any]) -> bool:
    if name == "open":
        path, _, flags = details
        inside = isinstance(path, (str, bytes)) and FOLDER in os.fsdecode(path)
        return inside and bool(flags & _WRITING)
    return name in _CHANGES
