"""The plan of a benchmark: runs, their order, their commands."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from gatekit.records import runs as records
from gatekit.serving.command import ArmName, arguments, client, tag
from gatekit.serving.points import Point
from gatekit.serving.reading import Measurement
from overlaykit.core.errors import Finding, InputError


class ServingRun(records.Record, frozen=True, kw_only=True, tag="serving"):
    """One run of the client against one arm. ``host`` is the machine it ran on;
    ``failed_attempts`` counts earlier attempts that measured nothing."""

    arm: ArmName
    round: int
    host: str
    failed_attempts: int
    measurement: Measurement
    argv: tuple[str, ...]


class PlannedRun(NamedTuple):
    """A run to make."""

    point: Point
    arm: ArmName
    round: int

    def __str__(self) -> str:
        return f"{self.point} {self.arm} round {self.round}"


@dataclass(frozen=True)
class Arm:
    """The URL of an arm, and the command of its server if this program starts it."""

    name: ArmName
    url: str
    start: tuple[str, ...] = ()
    origin: records.Origin = field(default_factory=records.Origin)


@dataclass(frozen=True)
class Bench:
    """Everything that does not change between runs."""

    arms: tuple[Arm, ...]
    points: tuple[Point, ...]
    rounds: int
    out: Path
    host: str
    python: tuple[str, ...] = (sys.executable,)
    extra: tuple[str, ...] = ()
    run_timeout_s: float = 6 * 3600
    start_timeout_s: float = 3600

    def __post_init__(self) -> None:
        """Raises InputError if an option would override one of the benchmark's own: the
        client uses the last one given, and accepts abbreviated names."""
        any_point = Point(1, 1, 1)
        own = arguments(any_point, tag(any_point, "", 1), "", self.out)
        for word in self.extra:
            name = word.partition("=")[0]
            if name.startswith("--") and any(w.startswith(name) for w in own):
                raise InputError(f"{name} is set by the benchmark and cannot be given")

    @property
    def records(self) -> Path:
        return self.out / "records.jsonl"

    def argv(self, run: PlannedRun) -> list[str]:
        """The command of a run."""
        what = tag(run.point, run.arm, run.round)
        name = f"{str(run.point).replace('/', '-')}-{run.arm}-{run.round}.jsonl"
        url, output = self.arm(run.arm).url, self.out / "raw" / name
        return client(
            self.python, (*arguments(run.point, what, url, output), *self.extra)
        )

    def arm(self, name: str) -> Arm:
        return next(arm for arm in self.arms if arm.name == name)

    def schedule(self) -> list[PlannedRun]:
        """Arms alternate, and so does their order: A B, B A. So changes over time
        affect both. If an arm must be started, it serves all points in turn; otherwise
        arms alternate point by point."""
        by_block = any(arm.start for arm in self.arms)
        plan = []
        for number in range(1, self.rounds + 1):
            arms = self.arms if number % 2 else self.arms[::-1]
            if by_block:
                plan += [
                    PlannedRun(point, arm.name, number)
                    for arm in arms
                    for point in self.points
                ]
                continue
            for index, point in enumerate(self.points):
                order = arms if index % 2 == 0 else arms[::-1]
                plan += [PlannedRun(point, arm.name, number) for arm in order]
        return plan


def remaining(bench: Bench) -> tuple[list[PlannedRun], list[ServingRun]]:
    """The remaining runs, and the recorded ones. Raises InputError if the recorded runs
    differ in setup from what would run now."""
    done = records.read(bench.records, ServingRun)
    plan = bench.schedule()
    known = {PlannedRun(one.measurement.point, one.arm, one.round): one for one in done}
    arms = {arm.name: arm for arm in bench.arms}
    differ: dict[tuple[str, str], PlannedRun] = {}
    for run, one in known.items():
        sides = []
        if run in plan:
            sides.append(_apart(settings(bench.argv(run)), settings(one.argv)))
        if run.arm in arms:
            sides.append((str(arms[run.arm].origin), str(one.origin)))
        if run.point in bench.points:
            sides.append((f"on {bench.host}", f"on {one.host}"))
        for now, then in sides:
            if now != then:
                differ.setdefault((now, then), run)
    if differ:
        findings = [
            Finding(
                f"{run} is recorded with a different setup",
                path=str(bench.records),
                expected=now,
                found=then,
                next_step="give another --out, or the options of the first call",
            )
            for (now, then), run in differ.items()
        ]
        raise InputError(
            f"{bench.records} contains runs with a different setup", tuple(findings)
        )
    return [run for run in plan if run not in known], done


def _apart(now: Sequence[str], then: Sequence[str]) -> tuple[str, str]:
    """The options that only one of two runs has; all options if only their order
    differs."""
    ours, theirs = _by_option(now), _by_option(then)
    more = " ".join(option for option in ours if option not in theirs)
    less = " ".join(option for option in theirs if option not in ours)
    if not more and not less:
        return " ".join(now), " ".join(then)
    return more or "not given", less or "not given"


def _by_option(words: Sequence[str]) -> list[str]:
    options: list[str] = []
    for word in words:
        if word.startswith("--") or not options:
            options.append(word)
        else:
            options[-1] += f" {word}"
    return options


def settings(argv: Sequence[str]) -> tuple[str, ...]:
    """The options of a command, except those that differ between the arms: URL, output
    file, and the tag, which follows from the rest. Raises InputError if one of them is
    missing."""
    try:
        words = list(argv[argv.index("sglang.bench_serving") + 1 :])
        for name in ("--base-url", "--output-file", "--tag"):
            place = words.index(name)
            del words[place : place + 2]
    except ValueError as error:
        command = " ".join(argv)
        raise InputError(f"not a command of sglang.bench_serving: {command}") from error
    return tuple(words)
