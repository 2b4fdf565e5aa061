"""Whether the runs are comparable: all of them, or none.

Leaving out a run because it went wrong is a selection that the statistics do not
account for. So every fault invalidates the whole comparison.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from gatekit.records import runs as records
from gatekit.serving.command import ARMS, BASELINE, PATCHED, ArmName, Tag, tag
from gatekit.serving.plan import ServingRun, settings
from gatekit.serving.points import Point
from gatekit.serving.reading import Measurement, read
from overlaykit.core.errors import Finding

_STEP = "find the cause, then measure again with another --out"


class ObservedRun(NamedTuple):
    """A run to compare, from our record or from the client's own output."""

    arm: ArmName
    round: int
    measurement: Measurement
    where: str
    started: float | None = None
    origin: records.Origin = records.Origin()
    settings: tuple[str, ...] = ()
    host: str | None = None
    failed_attempts: int = 0
    seconds: float | None = None  # the client's run time, including its start
    client_output: Measurement | None = None  # what the client's own file says

    @property
    def point(self) -> Point:
        return self.measurement.point

    def __str__(self) -> str:
        return f"{self.point} {self.arm} round {self.round}"


def of_records(out: Path) -> list[ObservedRun]:
    """The runs recorded in a directory of ``bench.py run``; possibly none."""
    path = out / "records.jsonl"
    return [
        ObservedRun(
            one.arm,
            one.round,
            one.measurement,
            str(path),
            one.started,
            one.origin,
            settings(one.argv),
            one.host,
            one.failed_attempts,
            one.seconds,
            _client_output(out, one.argv),
        )
        for one in records.read(path, ServingRun)
    ]


def _client_output(out: Path, argv: Sequence[str]) -> Measurement | None:
    kept = out / "raw" / Path(argv[argv.index("--output-file") + 1]).name
    return read(kept)[0] if kept.is_file() else None


def of_outputs(arm: ArmName, paths: Iterable[Path]) -> list[ObservedRun]:
    """One arm's runs from the client's output files; a point's runs are its rounds, in
    order."""
    seen: Counter[Point] = Counter()
    found = []
    for path in paths:
        for one in read(path):
            seen[one.point] += 1
            found.append(ObservedRun(arm, seen[one.point], one, str(path)))
    return found


def reasons_against(
    runs: Sequence[ObservedRun], points: Sequence[Point]
) -> list[Finding]:
    """The reasons why these runs cannot be compared. Without any, they can."""
    found = [
        _of(run, fault)
        for run in runs
        for fault in (*run.measurement.faults, *_kept(run))
    ]
    found += [_of(run, fault) for run in runs for fault in _impossible(run)]
    reasons = (
        *_misplaced(runs),
        *_incomplete(runs, points),
        *_repeated(runs),
        *_different_work(runs),
        *_different_settings(runs),
        *_of_other_origin(runs),
        *_on_other_hosts(runs),
        *_apart_in_time(runs),
    )
    where = ", ".join(sorted({run.where for run in runs}))
    found += [Finding(what, path=where or None, next_step=_STEP) for what in reasons]
    return found


def _of(run: ObservedRun, fault: Finding) -> Finding:
    return replace(
        fault,
        what=f"{run}: {fault.what}",
        path=fault.path or run.where,
        next_step=fault.next_step or _STEP,
    )


def _kept(run: ObservedRun) -> Iterator[Finding]:
    """Faults in the client's own output that our record lacks."""
    if run.client_output:
        known = {fault.what for fault in run.measurement.faults}
        yield from (
            fault for fault in run.client_output.faults if fault.what not in known
        )


def _impossible(run: ObservedRun) -> Iterator[Finding]:
    """Figures that no client writes. Runs with faults are already reported."""
    one = run.measurement
    if one.faults:
        return
    figures = {
        "throughput": one.throughput,
        "median TPOT": one.median_tpot_ms,
        "median TTFT": one.median_ttft_ms,
        "duration": one.duration_s,
    }
    bad = {name: x for name, x in figures.items() if not 0 < x < math.inf}
    for name, value in bad.items():
        expected = f"{name} a finite number above 0"
        yield Finding(f"its {name} is {value}", expected=expected, found=str(value))
    tokens = one.input_tokens + one.output_tokens
    if not bad and not math.isclose(
        one.throughput * one.duration_s, tokens, rel_tol=1e-3
    ):
        yield Finding(
            "its throughput does not match its tokens and its duration",
            expected=f"throughput {tokens / one.duration_s:.6g}",
            found=f"{one.throughput:.6g}",
        )
    for name, least, value in (
        ("round", 1, run.round),
        ("failed_attempts", 0, run.failed_attempts),
    ):
        if value < least:
            yield Finding(
                f"its {name} is {value}",
                expected=f'"{name}" of {least} or more',
                found=str(value),
            )
    if run.seconds is not None and run.seconds < one.duration_s:
        yield Finding(
            "its client ended before its requests did",
            expected=f"seconds of {one.duration_s:.6g} (its duration) or more",
            found=f"{run.seconds:.6g}",
        )
    if run.client_output and (unlike := _unlike(one, run.client_output)):
        yield Finding(
            "its record differs from the client's own output",
            expected=", ".join(f"{name} {theirs}" for name, (_, theirs) in unlike),
            found=", ".join(f"{name} {ours}" for name, (ours, _) in unlike),
        )


def _unlike(one: Measurement, other: Measurement) -> list[tuple[str, tuple[Any, Any]]]:
    """The fields that differ, except ``faults``, which are compared elsewhere."""
    both = {
        name: (getattr(one, name), getattr(other, name))
        for name in Measurement.__struct_fields__
        if name != "faults"
    }
    return [(name, two) for name, two in both.items() if two[0] != two[1]]


def _misplaced(runs: Sequence[ObservedRun]) -> Iterator[str]:
    for run in runs:
        what = run.measurement.tag
        expected = tag(run.point, run.arm, run.round)
        if run.started is not None and what != expected:
            yield f"{run}: its output has the tag of another run"
        elif what and what.arm != run.arm:
            yield f"{run}: its tag names the {what.arm} arm"
        elif what and what != tag(run.point, run.arm, what.round):
            yield f"{run}: its tag differs from what `bench.py run` writes"


def _incomplete(runs: Sequence[ObservedRun], points: Sequence[Point]) -> Iterator[str]:
    """Each point that was run must have all rounds, once on each arm."""
    if not runs:
        yield "nothing was run"
    count = Counter((run.point, run.arm, run.round) for run in runs)
    rounds = sorted({run.round for run in runs})
    for point in sorted({run.point for run in runs}):
        if point not in points:
            yield f"{point}: it was run, but --points does not name it (--points)"
        for arm in ARMS:
            lacking = [n for n in rounds if not count[point, arm, n]]
            if len(lacking) == len(rounds):
                yield f"{point} {arm}: not run"
            elif lacking:
                yield f"{point} {arm}: no round {', '.join(map(str, lacking))}"
    for (point, arm, number), times in count.items():
        if times > 1:
            yield f"{point} {arm} round {number}: {times} runs with one name"


def _repeated(runs: Sequence[ObservedRun]) -> Iterator[str]:
    """Two runs never have exactly equal times: equal times mean a copied run."""

    def clock(run: ObservedRun) -> Hashable:
        return run.measurement.duration_s, run.measurement.median_tpot_ms

    for same in _groups(runs, clock).values():
        if len(same) > 1:
            names = ", ".join(f"{run} ({run.where})" for run in same)
            yield f"one measurement under several names: {names}"


def _different_work(runs: Sequence[ObservedRun]) -> Iterator[str]:
    """Both runs of a pair must have requests of equal lengths, one by one."""

    def key(run: ObservedRun) -> tuple[Point, int]:
        return run.point, run.round

    def work(run: ObservedRun) -> Hashable:
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
            yield f"{point} round {number}: the arms' clients had different options"


def _different_settings(runs: Sequence[ObservedRun]) -> Iterator[str]:
    for what, settings_of_runs in (
        ("the client's", [run.measurement.client for run in runs]),
        ("the server's", [run.measurement.server for run in runs]),
    ):
        for name in sorted({name for one in settings_of_runs for name in one}):
            found = {one.get(name, "not recorded") for one in settings_of_runs}
            if len(found) > 1:
                values = ", ".join(sorted(value[:60] for value in found))
                yield f"{what} {name} differs between runs: {values}"
    for run in runs:
        if not run.measurement.server:
            yield f"{run}: the server did not report its settings"


def _of_other_origin(runs: Sequence[ObservedRun]) -> Iterator[str]:
    """All runs of an arm must share tree, series, image and command; the arms must
    differ in the series."""
    for arm in ARMS:
        for what in records.Origin.__struct_fields__:
            first: dict[str, ObservedRun] = {}
            for run in runs:
                if run.arm == arm:
                    first.setdefault(getattr(run.origin, what), run)
            if len(first) > 1:
                values = ", ".join(
                    f"{value or 'not recorded'} ({run} in {run.where})"
                    for value, run in first.items()
                )
                yield f"the {arm} arm's runs differ in {what}: {values}"
    of_arm = {a: {run.origin.series for run in runs if run.arm == a} for a in ARMS}
    for series in sorted(of_arm[BASELINE] & of_arm[PATCHED] - {""}):
        yield (
            f"both arms have runs of the series {series}; if a switch turns it off in "
            "one arm, give that arm's series as off"
        )


def _on_other_hosts(runs: Sequence[ObservedRun]) -> Iterator[str]:
    """Two nodes of one kind differ by more than the effect to be measured."""
    for point, here in sorted(_groups(runs, lambda run: run.point).items()):
        hosts = sorted({run.host for run in here if run.host is not None})
        if len(hosts) > 1:
            yield (
                f"{point}: its runs are from several nodes ({', '.join(hosts)}); both "
                "arms of a point must run on one node"
            )


def _apart_in_time(runs: Sequence[ObservedRun]) -> Iterator[str]:
    """If one arm runs after the other, the time between them affects the result."""
    for point, here in sorted(_groups(runs, lambda run: run.point).items()):
        if len({run.round for run in here}) < 2:
            continue
        times = {arm: [r.started for r in here if r.arm == arm] for arm in ARMS}
        one, other = (
            [t for t in times[arm] if t is not None] for arm in (BASELINE, PATCHED)
        )
        if one and other and (max(one) < min(other) or max(other) < min(one)):
            yield f"{point}: the arms were not interleaved"


def _groups(
    runs: Sequence[ObservedRun], key: Callable[[ObservedRun], Any]
) -> dict[Any, Any]:
    found: dict[Any, list[ObservedRun]] = defaultdict(list)
    for run in runs:
        found[key(run)].append(run)
    return found
