"""Which runs may be compared: all of them, or none.

A run that is left out because it went wrong is a choice that the statistics know
nothing of. So whatever does not fit is a reason against the whole comparison.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import records
from serving.command import ARMS, BASELINE, CANDIDATE, Tag, tag
from serving.plan import ServingRun, settings
from serving.points import Point
from serving.reading import Measurement, read


class Observed(NamedTuple):
    """A run to compare, from our record of it or from the client's own output."""

    arm: str
    round: int
    measurement: Measurement
    where: str
    started: float | None = None
    origin: records.Origin | None = None
    settings: tuple[str, ...] = ()

    @property
    def point(self) -> Point:
        return self.measurement.point

    def __str__(self) -> str:
        return f"{self.point} {self.arm} round {self.round}"


def of_records(path: Path) -> list[Observed]:
    """Both arms, as ``bench.py run`` records them."""
    return [
        Observed(
            one.arm,
            one.round,
            one.measurement,
            str(path),
            one.started,
            one.origin,
            settings(one.argv),
        )
        for one in records.read(path, ServingRun)
    ]


def of_outputs(arm: str, paths: Iterable[Path]) -> list[Observed]:
    """One arm, from the client's output files: a point's runs in order are rounds."""
    seen: Counter[Point] = Counter()
    found = []
    for path in paths:
        for one in read(path):
            seen[one.point] += 1
            found.append(Observed(arm, seen[one.point], one, str(path)))
    return found


def reasons_against(runs: Sequence[Observed], points: Sequence[Point]) -> list[str]:
    """Why these runs cannot be compared; none, and they can."""
    found = [f"{run}: {fault}" for run in runs for fault in run.measurement.faults]
    found += _misplaced(runs)
    found += _incomplete(runs, points)
    found += _repeated(runs)
    found += _different_work(runs)
    found += _different_settings(runs)
    found += _apart_in_time(runs)
    return found


def _misplaced(runs: Sequence[Observed]) -> Iterator[str]:
    for run in runs:
        what = run.measurement.tag
        expected = tag(run.point, run.arm, run.round)
        if run.started is not None and what != expected:
            yield f"{run}: its output is tagged as another run"
        elif what and what.arm != run.arm:
            yield f"{run}: it is tagged as the {what.arm}'s"


def _incomplete(runs: Sequence[Observed], points: Sequence[Point]) -> Iterator[str]:
    """Every asked point has the same rounds, once on each arm."""
    count = Counter((run.point, run.arm, run.round) for run in runs)
    rounds = sorted({run.round for run in runs})
    for point in sorted({run.point for run in runs} - set(points)):
        yield f"{point}: it was run, but is not among the points asked for"
    for point in points:
        for arm in ARMS:
            lacking = [n for n in rounds if not count[point, arm, n]]
            if len(lacking) == len(rounds):
                yield f"{point} {arm}: not run"
            elif lacking:
                yield f"{point} {arm}: no round {', '.join(map(str, lacking))}"
    for (point, arm, number), times in count.items():
        if times > 1:
            yield f"{point} {arm} round {number}: {times} runs of one name"


def _repeated(runs: Sequence[Observed]) -> Iterator[str]:
    """Clocks never agree to the last bit: where they do, it is one run, twice."""

    def clock(run: Observed) -> Hashable:
        return run.measurement.duration_s, run.measurement.median_tpot_ms

    for same in _groups(runs, clock).values():
        if len(same) > 1:
            names = ", ".join(f"{run} ({run.where})" for run in same)
            yield f"one measurement under several names: {names}"


def _different_work(runs: Sequence[Observed]) -> Iterator[str]:
    """A pair's requests have the same lengths, one by one."""

    def key(run: Observed) -> tuple[Point, int]:
        return run.point, run.round

    def work(run: Observed) -> Hashable:
        what = run.measurement
        tagged = what.tag or Tag("", 0, 0, 0, 0)
        return (
            what.lengths,
            what.input_tokens,
            what.output_tokens,
            what.completed,
            tagged.seed,
            tagged.warmup_requests,
        )

    for (point, number), pair in _groups(runs, key).items():
        if len({work(run) for run in pair}) > 1:
            yield f"{point} round {number}: the arms did not do the same work"
        if len({run.settings for run in pair}) > 1:
            yield f"{point} round {number}: the arms' clients had other options"


def _different_settings(runs: Sequence[Observed]) -> Iterator[str]:
    for what, told in (
        ("the client's", [run.measurement.client for run in runs]),
        ("the server's", [run.measurement.server for run in runs]),
    ):
        for name in sorted({name for one in told for name in one}):
            found = {one.get(name, "not told") for one in told}
            if len(found) > 1:
                said = ", ".join(sorted(value[:60] for value in found))
                yield f"{what} {name} differs between runs: {said}"
    for run in runs:
        if not run.measurement.server:
            yield f"{run}: the server did not tell its settings"
    for arm in ARMS:
        if len({run.origin for run in runs if run.arm == arm}) > 1:
            yield f"the {arm}'s runs are of different trees, images or commands"


def _apart_in_time(runs: Sequence[Observed]) -> Iterator[str]:
    """All of one arm, then all of the other, measures the hours between as well."""
    for point, here in sorted(_groups(runs, lambda run: run.point).items()):
        if len({run.round for run in here}) < 2:
            continue
        times = {arm: [r.started for r in here if r.arm == arm] for arm in ARMS}
        one, other = (
            [t for t in times[arm] if t is not None] for arm in (BASELINE, CANDIDATE)
        )
        if one and other and (max(one) < min(other) or max(other) < min(one)):
            yield f"{point}: the arms were not interleaved"


def _groups(runs: Sequence[Observed], key: Callable[[Observed], Any]) -> dict[Any, Any]:
    found: dict[Any, list[Observed]] = defaultdict(list)
    for run in runs:
        found[key(run)].append(run)
    return found
