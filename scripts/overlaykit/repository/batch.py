"""Objects of a clone, read by one long-lived ``git cat-file --batch``.

Git is only asked for whole ids: no name can end a request early, and an object that
the clone lacks is told apart from a name that stands for none. A process that has died
is an error, and never an object that is not there.
"""

from __future__ import annotations

import os
import shlex
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from overlaykit.core.errors import EnvironmentFailure, Finding
from overlaykit.repository import clones

Row = tuple[str, str]


class Batch:
    """The process. Close it."""

    def __init__(self, clone: Path) -> None:
        self._clone = clone
        # What git complains of is told if it dies, and is no output of ours before.
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115
        try:
            self._git = clones.start(clone, "cat-file", "--batch", errors=self._errors)
        except BaseException:
            self._errors.close()
            raise

    def read(self, oid: str) -> tuple[str, bytes]:
        """Kind and bytes of an object; no kind where the clone has none of that id.

        Raises EnvironmentFailure where git gives no whole answer.
        """
        assert self._git.stdin is not None and self._git.stdout is not None
        try:
            self._git.stdin.write(oid.encode() + b"\n")
            self._git.stdin.flush()
            said = self._git.stdout.readline().decode().split()
            if said == [oid, "missing"]:
                return "", b""
            if len(said) == 3 and said[0] == oid and said[2].isdigit():
                data = self._git.stdout.read(int(said[2]) + 1)
                if len(data) == int(said[2]) + 1:
                    return said[1], data[:-1]
        except (OSError, ValueError) as error:
            raise self._died(oid) from error
        raise self._died(oid)

    def rows(self, oid: str) -> dict[str, Row] | None:
        """A tree's names, with mode and id; None where the clone has no such tree."""
        kind, data = self.read(oid)
        if kind != "tree":
            return None
        try:
            return dict(_rows(data, len(oid) // 2))
        except ValueError as error:
            raise self._died(oid) from error

    def close(self) -> None:
        """End the process."""
        self._end()
        self._errors.close()

    def _end(self) -> int:
        for pipe in (self._git.stdin, self._git.stdout):
            # A process that has died takes no last word.
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()
        return self._git.wait()

    def _died(self, oid: str) -> EnvironmentFailure:
        code = self._end()
        self._errors.seek(0)
        said = self._errors.read().decode(errors="replace").strip()
        finding = Finding(
            "git gave no answer",
            path=str(self._clone),
            expected=f"object {oid}, or that there is none",
            found=said or f"git cat-file ended with exit code {code}",
            next_step=f"git -C {shlex.quote(str(self._clone))} fsck",
        )
        return EnvironmentFailure(f"git cannot read {self._clone}", (finding,))


def _rows(data: bytes, width: int) -> Iterator[tuple[str, Row]]:
    """The rows of a tree object, whose ids are ``width`` bytes. Raises ValueError where
    it is none."""
    at = 0
    while at < len(data):
        space, end = data.index(b" ", at), data.index(b"\0", at)
        mode, name = data[at:space].decode(), os.fsdecode(data[space + 1 : end])
        at = end + 1 + width
        yield name, (mode.lstrip("0"), data[end + 1 : at].hex())
