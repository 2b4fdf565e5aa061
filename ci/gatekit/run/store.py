"""The run directory: ``STAGE/KEY/`` holds what a stage with that key came to.

The key is of everything that the result depends on, so that a result is taken again
only where nothing changed, and what changed gets a folder of its own: nothing is
mixed, nothing is lost.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gatekit.records.fields import Misfit, decoded
from gatekit.report.schema import StageReport, State
from overlaykit.core.documents import to_json
from overlaykit.core.errors import EnvironmentFailure, Finding, InputError
from overlaykit.core.files import write_whole

_RESULT, _LOCK = "result.json", ".lock"
_STEP = "take it away: the stage runs again where it has no result"
_DECIDED = (State.PASS, State.FAIL, State.INCONCLUSIVE)


class Store:
    """One run directory."""

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()

    def folder(self, stage: str, key: str) -> Path:
        """Where a stage with this key keeps what it makes; not made yet."""
        # A point's slashes are no folders.
        return self.root / stage.replace("/", "-").replace(":", "-") / key

    def place(self, stage: str, key: str) -> Path:
        """The file that its result is in."""
        return self.folder(stage, key) / _RESULT

    def known(self, stage: str, key: str) -> StageReport | None:
        """What was decided before. Raises InputError where the file is another's."""
        path = self.place(stage, key)
        try:
            data = path.read_bytes()
            report = decoded(data, StageReport)
            _whole(decoded(data, dict[str, Any]))
        except FileNotFoundError:
            return None
        except OSError as error:
            raise EnvironmentFailure(f"cannot read {path}: {error}") from error
        except Misfit as error:
            head = f"{path} is not a stage's result"
            raise error.refusal(head, path, _STEP) from error
        if (report.name, report.key) != (stage, key):
            found = f"that of {report.name}, {report.key}"
            raise _foreign(path, f"the result of {stage} with key {key}", found)
        return report if report.state in _DECIDED else None

    def others(self, stage: str, key: str) -> int:
        """How many results of this stage are of another series, profile or code."""
        folder = self.folder(stage, key).parent
        names = [path.parent.name for path in folder.glob(f"*/{_RESULT}")]
        return sum(name.partition(".")[0] != key for name in names)

    def keep(self, report: StageReport) -> None:
        """On disk, whole, when this returns."""
        folder = self.folder(report.name, report.key)
        text = to_json(report).decode()
        write_whole(folder / _RESULT, text)

    @contextmanager
    def working(self, stage: str, key: str, anew: bool = False) -> Iterator[Path]:
        """The folder, made, and nobody else's for the time of the block; ``anew``
        empty, with what was in it set aside.

        Raises EnvironmentFailure where another gate has it, or it cannot be made.
        """
        folder = self.folder(stage, key)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            handle = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            finding = Finding(str(error), path=str(folder))
            message = "cannot write the run directory"
            raise EnvironmentFailure(message, (finding,)) from error
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                finding = Finding(
                    "another gate is at this stage",
                    path=str(folder),
                    next_step="wait for it, or give another --out",
                )
                raise EnvironmentFailure(f"{stage} is taken", (finding,)) from error
            if anew:
                _set_aside(folder)
            yield folder
        finally:
            os.close(handle)


def _set_aside(folder: Path) -> None:
    """Not taken away: hours of a GPU may be in it. Raises EnvironmentFailure."""
    there = [path for path in folder.iterdir() if path.name != _LOCK]
    if not there:
        return
    before = len(list(folder.parent.glob(f"{folder.name}.*")))
    aside = folder.with_name(f"{folder.name}.{before + 1}")
    try:
        aside.mkdir()
        for path in there:
            path.rename(aside / path.name)
    except OSError as error:
        finding = Finding(str(error), path=str(aside))
        message = "cannot set aside what was run before"
        raise EnvironmentFailure(message, (finding,)) from error


def _foreign(path: Path, expected: str, found: str) -> InputError:
    finding = Finding(
        "a result from another run was put here",
        path=str(path),
        expected=expected,
        found=found,
        next_step=_STEP,
    )
    return InputError(
        f"results of different runs are mixed: {path}: expected {expected}, found "
        f"{found}",
        (finding,),
    )


def _whole(told: dict[str, Any]) -> None:
    """The gate writes every field; a default in place of one would be made up. Raises
    Misfit."""
    for name in StageReport.__struct_fields__:
        if name not in told:
            raise Misfit(f'has no "{name}"', name, "a value", "no such field")
