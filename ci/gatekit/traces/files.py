"""The files that a command line names: files, or directories of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from stat import S_ISDIR

from gatekit.traces.reading import may_be_trace
from gatekit.traces.verdicts import rank_named
from overlaykit.core.errors import EnvironmentFailure, Finding, InputError

_ENDINGS = (".json", ".json.gz")


@dataclass(frozen=True)
class Job:
    """One trace with its baseline and captures."""

    trace: Path
    baseline: Path | None
    captures: tuple[Path, ...]


@dataclass(frozen=True)
class TraceFiles:
    """The traces that paths name, and other JSON files in the same directories."""

    traces: tuple[Path, ...]
    others: tuple[Path, ...] = ()


def find(paths: Sequence[Path]) -> TraceFiles:
    """A named file is always read as a trace. In a directory, other JSON files are
    ignored: programs write lists of the traces next to them."""
    traces: list[Path] = []
    others: list[Path] = []
    for path in paths:
        try:
            if not S_ISDIR(path.stat().st_mode):
                traces.append(path)
                continue
            inside = _inside(path)
            traces += inside.traces
            others += inside.others
        except FileNotFoundError as error:
            step = "give a profiler's file, or a directory of them"
            finding = Finding("does not exist", path=str(path), next_step=step)
            raise InputError(f"{path} does not exist", (finding,)) from error
        except OSError as error:
            raise EnvironmentFailure(f"cannot read {path}: {error.strerror}") from error
    return TraceFiles(tuple(dict.fromkeys(traces)), tuple(dict.fromkeys(others)))


def _inside(folder: Path) -> TraceFiles:
    named = sorted(p for p in folder.iterdir() if p.name.endswith(_ENDINGS))
    traces = tuple(path for path in named if may_be_trace(path))
    others = tuple(path for path in named if path not in traces)
    if not traces:
        expected = " or ".join(f"*{ending}" for ending in _ENDINGS)
        finding = Finding(
            "no trace in the directory",
            path=str(folder),
            expected=expected,
            found=", ".join(f"{path.name}, not a trace" for path in others) or None,
        )
        raise InputError("a directory without traces", (finding,))
    return TraceFiles(traces, others)


def jobs(traces: TraceFiles, baselines: TraceFiles, captures: TraceFiles) -> list[Job]:
    """Pair every trace with the baseline and captures of its rank."""
    found, before, recorded = traces.traces, baselines.traces, captures.traces
    return [
        Job(trace, _baseline(trace, before, len(found)), captures_of(trace, recorded))
        for trace in found
    ]


def _baseline(trace: Path, baselines: Sequence[Path], traces: int) -> Path | None:
    if not baselines:
        return None
    # A single pair is matched without names; its contents then show the ranks.
    if traces == 1 and len(baselines) == 1:
        return baselines[0]
    rank = rank_named(str(trace))
    same = [path for path in baselines if rank_named(str(path)) == rank]
    if rank is None or len(same) != 1:
        finding = Finding(
            f"{len(same)} baselines match this trace",
            path=str(trace),
            expected="one with the same TP rank in its name",
            found=", ".join(path.name for path in baselines),
            next_step="give one trace and its baseline",
        )
        raise InputError("cannot pair traces with baselines", (finding,))
    return same[0]


def captures_of(trace: Path, captures: Sequence[Path]) -> tuple[Path, ...]:
    """The captures of the trace's rank, or all if their names do not show it."""
    rank = rank_named(str(trace))
    same = tuple(path for path in captures if rank_named(str(path)) == rank)
    return same or tuple(captures)
