"""Which files a command line names: one, several ranks, or a directory of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from stat import S_ISDIR

from overlaykit.errors import EnvironmentFailure, Finding, InputError
from traces.judging import rank_named

_ENDINGS = (".json", ".json.gz")


@dataclass(frozen=True)
class Job:
    """One trace with what belongs to it."""

    trace: Path
    baseline: Path | None
    captures: tuple[Path, ...]


def jobs(
    traces: Sequence[Path], baselines: Sequence[Path], captures: Sequence[Path]
) -> list[Job]:
    """Pair every trace with the baseline and captures of its rank."""
    found = _files(traces)
    before, recorded = _files(baselines), _files(captures)
    return [
        Job(trace, _baseline(trace, before, len(found)), _captures(trace, recorded))
        for trace in found
    ]


def _files(paths: Sequence[Path]) -> list[Path]:
    found: list[Path] = []
    for path in paths:
        try:
            found += _inside(path) if S_ISDIR(path.stat().st_mode) else [path]
        except FileNotFoundError as error:
            step = "give a profiler's file, or a directory of them"
            finding = Finding("does not exist", path=str(path), next_step=step)
            raise InputError(f"{path} does not exist", (finding,)) from error
        except OSError as error:
            raise EnvironmentFailure(f"cannot read {path}: {error.strerror}") from error
    return list(dict.fromkeys(found))


def _inside(folder: Path) -> list[Path]:
    inside = sorted(p for p in folder.iterdir() if p.name.endswith(_ENDINGS))
    if not inside:
        expected = " or ".join(f"*{ending}" for ending in _ENDINGS)
        finding = Finding("no trace in it", path=str(folder), expected=expected)
        raise InputError("a directory without traces", (finding,))
    return inside


def _baseline(trace: Path, baselines: list[Path], traces: int) -> Path | None:
    if not baselines:
        return None
    # Alone they are a pair; whether of one rank is then for the trace itself to say.
    if traces == 1 and len(baselines) == 1:
        return baselines[0]
    rank = rank_named(str(trace))
    same = [path for path in baselines if rank_named(str(path)) == rank]
    if rank is None or len(same) != 1:
        finding = Finding(
            f"{len(same)} baselines for it",
            path=str(trace),
            expected="one with the same TP rank in its name",
            found=", ".join(path.name for path in baselines),
            next_step="name one trace and its baseline",
        )
        raise InputError("cannot pair traces with baselines", (finding,))
    return same[0]


def _captures(trace: Path, captures: list[Path]) -> tuple[Path, ...]:
    """Those of its rank, or all where names do not tell: contents will."""
    rank = rank_named(str(trace))
    same = tuple(path for path in captures if rank_named(str(path)) == rank)
    return same or tuple(captures)
