"""The run directory: ``STAGE/KEY/`` holds the result of a stage with that key.

The key is a digest of everything that the result depends on. A result is used again
only if nothing has changed; a changed stage gets its own folder, so results are never
mixed or lost.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gatekit.records.fields import Misfit, decoded
from gatekit.report.schema import StageReport, StageState
from overlaykit.core.documents import to_json
from overlaykit.core.errors import EnvironmentFailure, Finding, InputError
from overlaykit.core.files import write_whole
from overlaykit.core.locks import folder_locked

_RESULT, _LOCK = "result.json", ".lock"
_STEP = "delete this file: the stage then runs again"
_DECIDED = (StageState.PASS, StageState.FAIL, StageState.INCONCLUSIVE)


class Store:
    """One run directory."""

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()

    def folder(self, stage: str, key: str) -> Path:
        """The folder of a stage with this key; it may not exist yet."""
        # The slashes in a point's name must not make folders.
        return self.root / stage.replace("/", "-").replace(":", "-") / key

    def result_file(self, stage: str, key: str) -> Path:
        """The file with the stage's result."""
        return self.folder(stage, key) / _RESULT

    def known(self, stage: str, key: str) -> StageReport | None:
        """The stage's earlier result if it was decided. Raises InputError if the file
        holds another stage's result."""
        path = self.result_file(stage, key)
        try:
            data = path.read_bytes()
            report = decoded(data, StageReport)
            _require_every_field(decoded(data, dict[str, Any]))
        except FileNotFoundError:
            return None
        except OSError as error:
            raise EnvironmentFailure(f"cannot read {path}: {error}") from error
        except Misfit as error:
            head = f"{path} is not a stage's result"
            raise error.refusal(head, path, _STEP) from error
        if (report.name, report.key) != (stage, key):
            found = f"that of {report.name}, {report.key}"
            raise _misplaced(path, f"the result of {stage} with key {key}", found)
        return report if report.state in _DECIDED else None

    def others(self, stage: str, key: str) -> int:
        """The number of this stage's results for another series, profile or code."""
        folder = self.folder(stage, key).parent
        names = [path.parent.name for path in folder.glob(f"*/{_RESULT}")]
        return sum(name.partition(".")[0] != key for name in names)

    def keep(self, report: StageReport) -> None:
        """Write the result; it is complete on disk on return."""
        folder = self.folder(report.name, report.key)
        text = to_json(report).decode()
        write_whole(folder / _RESULT, text)

    @contextmanager
    def working(self, stage: str, key: str, fresh: bool = False) -> Iterator[Path]:
        """Create and lock the stage's folder for the duration of the block. With
        ``fresh``, earlier files are moved aside first.

        Raises EnvironmentFailure if another gate holds the lock or the folder cannot be
        created.
        """
        folder = self.folder(stage, key)
        with folder_locked(folder / _LOCK):
            if fresh:
                _set_aside(folder)
            yield folder


def _set_aside(folder: Path) -> None:
    """Move earlier files to another folder; they are kept, because they may have taken
    hours of GPU time. Raises EnvironmentFailure."""
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
        message = "cannot move the earlier results aside"
        raise EnvironmentFailure(message, (finding,)) from error


def _misplaced(path: Path, expected: str, found: str) -> InputError:
    finding = Finding(
        "this is a result from another run",
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


def _require_every_field(document: dict[str, Any]) -> None:
    """The gate writes every field, so a default would be invented. Raises Misfit."""
    for name in StageReport.__struct_fields__:
        if name not in document:
            raise Misfit(f'has no "{name}"', name, "a value", "no such field")
