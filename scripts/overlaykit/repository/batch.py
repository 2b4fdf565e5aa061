"""Reading a clone's objects with one long-lived ``git cat-file --batch``.

Requests are full ids only. So no name can end a request early, and a missing object
is distinct from a name that does not resolve. A process that has died is an error; it
never counts as a missing object.
"""

from __future__ import annotations

import shlex
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from overlaykit.core.errors import EnvironmentFailure, Finding
from overlaykit.core.objects import Row, tree_rows
from overlaykit.repository import clones

_AT_ONCE = 200
"""Requests that git gets before an answer is read; a pipe holds several times more."""
_REMEMBERED = 32 << 20
"""Bytes of blobs that stay in memory."""
_ROWS = 5000
"""Folders that stay in memory."""


class Batch:
    """The git process. Close it after use.

    Several trees of a clone may share it: then what they have in common is read once.
    """

    def __init__(self, clone: Path) -> None:
        self.clone = clone
        self.searched: dict[tuple[object, ...], tuple[tuple[str, str], ...]] = {}
        """What a search found below a folder: paths there, and blobs."""
        self.contain: dict[tuple[object, ...], bool] = {}
        """Whether a blob has what a search looks for."""
        self._rows: dict[str, dict[str, Row]] = {}
        self._blobs: dict[str, bytes] = {}
        self._size = 0
        # Git's error output is shown only if it dies.
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115
        try:
            self._git = clones.start(clone, "cat-file", "--batch", errors=self._errors)
        except BaseException:
            self._errors.close()
            raise

    def read(self, oid: str) -> tuple[str, bytes]:
        """Kind and bytes of an object; an empty kind if the clone does not have it.

        Raises EnvironmentFailure if git's answer is missing or incomplete.
        """
        [found] = self.read_all([oid])
        return found

    def read_all(self, oids: Sequence[str]) -> Iterator[tuple[str, bytes]]:
        """The same for several objects, in order. Take all of them before the next
        request."""
        for at in range(0, len(oids), _AT_ONCE):
            asked = oids[at : at + _AT_ONCE]
            self._ask(asked)
            yield from [self._answer(oid) for oid in asked]

    def blob(self, oid: str) -> bytes | None:
        """A blob; it stays in memory for the next tree. None if there is none."""
        if oid in self._blobs:
            # The one that was not needed for longest is forgotten first.
            self._blobs[oid] = data = self._blobs.pop(oid)
            return data
        kind, data = self.read(oid)
        if kind != "blob":
            return None
        self._blobs[oid] = data
        self._size += len(data)
        while self._size > _REMEMBERED and len(self._blobs) > 1:
            self._size -= len(self._blobs.pop(next(iter(self._blobs))))
        return data

    def _ask(self, oids: Sequence[str]) -> None:
        assert self._git.stdin is not None
        try:
            self._git.stdin.write("".join(f"{oid}\n" for oid in oids).encode())
            self._git.stdin.flush()
        except (OSError, ValueError) as error:
            raise self._died(oids[0]) from error

    def _answer(self, oid: str) -> tuple[str, bytes]:
        assert self._git.stdout is not None
        try:
            header = self._git.stdout.readline().decode().split()
            if header == [oid, "missing"]:
                return "", b""
            if len(header) == 3 and header[0] == oid and header[2].isdigit():
                data = self._git.stdout.read(int(header[2]) + 1)
                if len(data) == int(header[2]) + 1:
                    return header[1], data[:-1]
        except (OSError, ValueError) as error:
            raise self._died(oid) from error
        raise self._died(oid)

    def rows(self, oid: str) -> dict[str, Row] | None:
        """The names in a tree, with mode and id; None if the clone lacks the tree."""
        if oid in self._rows:
            return self._rows[oid]
        kind, data = self.read(oid)
        if kind != "tree":
            return None
        try:
            rows = dict(tree_rows(data, len(oid) // 2))
        except ValueError as error:
            raise self._died(oid) from error
        self._rows[oid] = rows
        if len(self._rows) > _ROWS:
            del self._rows[next(iter(self._rows))]
        return rows

    def close(self) -> None:
        """End the process."""
        self._end()
        self._errors.close()

    def __enter__(self) -> Batch:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _end(self) -> int:
        for pipe in (self._git.stdin, self._git.stdout):
            # Flushing to a process that has died fails.
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()
        return self._git.wait()

    def _died(self, oid: str) -> EnvironmentFailure:
        code = self._end()
        self._errors.seek(0)
        output = self._errors.read().decode(errors="replace").strip()
        finding = Finding(
            "git cat-file failed",
            path=str(self.clone),
            expected=f"object {oid}, or 'missing'",
            found=output or f"git cat-file ended with exit code {code}",
            next_step=f"git -C {shlex.quote(str(self.clone))} fsck",
        )
        return EnvironmentFailure(f"git cannot read {self.clone}", (finding,))
