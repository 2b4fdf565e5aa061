"""Which files a command line names: one, several ranks, or a directory of them."""

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
    """One trace with what belongs to it."""

    trace: Path
    baseline: Path | None
    captures: tuple[Path, ...]


@dataclass(frozen=True)
class TraceFiles:
    """The traces that paths name, and what lay beside them and is none."""

    traces: tuple[Path, ...]
    others: tuple[Path, ...] = ()


def find(paths: Sequence[Path]) -> TraceFiles:
    """A file that is named is taken for a trace, whatever it is; of a directory, those
    that are: profilers' callers write lists of the traces beside them."""
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
            "no trace in it",
            path=str(folder),
            expected=expected,
            found=", ".join(f"{path.name}, which is none" for path in others) or None,
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


def captures_of(trace: Path, captures: Sequence[Path]) -> tuple[Path, ...]:
    """Those of its rank, or all where names do not tell: contents will."""
    rank = rank_named(str(trace))
    same = tuple(path for path in captures if rank_named(str(path)) == rank)
    return same or tuple(captures)
