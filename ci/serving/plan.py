"""What is run, in which order, and by which command."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import records
from overlaykit.cli import Result
from overlaykit.errors import Finding, InputError
from serving.command import arguments, client, tag
from serving.points import TEN, Point
from serving.reading import Measurement


class ServingRun(records.Record, frozen=True, kw_only=True, tag="serving"):
    """One run of the client against one arm."""

    round: int
    measurement: Measurement
    argv: tuple[str, ...]


class Planned(NamedTuple):
    """A run to be made."""

    point: Point
    arm: str
    round: int

    def __str__(self) -> str:
        return f"{self.point} {self.arm} round {self.round}"


class RunResult(Result, frozen=True, kw_only=True):
    """The commands of a dry run; or what is recorded."""

    commands: tuple[str, ...] = ()
    runs: tuple[ServingRun, ...] = ()


@dataclass(frozen=True)
class Arm:
    """Where an arm is served, and what serves it where this program starts it."""

    name: str
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
    python: str | None = None
    extra: tuple[str, ...] = ()
    run_timeout_s: float = 6 * 3600
    start_timeout_s: float = 3600

    def __post_init__(self) -> None:
        """Raises InputError where an option would undo one of the benchmark's own; the
        client takes the last, and any beginning of a name for the name."""
        own = arguments(TEN[0], tag(TEN[0], "", 1), "", self.out)
        for word in self.extra:
            name = word.partition("=")[0]
            if name.startswith("--") and any(w.startswith(name) for w in own):
                raise InputError(f"{name} is the benchmark's own option")

    @property
    def records(self) -> Path:
        return self.out / "records.jsonl"

    def argv(self, run: Planned) -> list[str]:
        """The command of a run."""
        what = tag(run.point, run.arm, run.round)
        name = f"{str(run.point).replace('/', '-')}-{run.arm}-{run.round}.jsonl"
        url, output = self.arm(run.arm).url, self.out / "raw" / name
        return client(
            self.python, (*arguments(run.point, what, url, output), *self.extra)
        )

    def arm(self, name: str) -> Arm:
        return next(arm for arm in self.arms if arm.name == name)

    def schedule(self) -> list[Planned]:
        """Arms alternate, and so does which is first: A B, B A. What drifts with time
        then falls on both. Where an arm must be started, it serves all points in turn;
        else arms alternate point by point."""
        by_block = any(arm.start for arm in self.arms)
        plan = []
        for number in range(1, self.rounds + 1):
            arms = self.arms if number % 2 else self.arms[::-1]
            if by_block:
                plan += [
                    Planned(point, arm.name, number)
                    for arm in arms
                    for point in self.points
                ]
                continue
            for index, point in enumerate(self.points):
                order = arms if index % 2 == 0 else arms[::-1]
                plan += [Planned(point, arm.name, number) for arm in order]
        return plan


def remaining(bench: Bench) -> tuple[list[Planned], list[ServingRun]]:
    """What is left to run, and what is recorded. Raises InputError where what is
    recorded was asked otherwise than it would be now."""
    done = records.read(bench.records, ServingRun)
    plan = bench.schedule()
    known = {
        Planned(one.measurement.point, one.arm, one.round): settings(one.argv)
        for one in done
    }
    for run in plan:
        if run in known and known[run] != settings(bench.argv(run)):
            raise InputError(
                f"{run} is recorded in {bench.records} with other options",
                (
                    Finding(
                        "recorded otherwise",
                        path=str(bench.records),
                        expected=" ".join(settings(bench.argv(run))),
                        found=" ".join(known[run]),
                        next_step="name another --out, or the options of before",
                    ),
                ),
            )
    return [run for run in plan if run not in known], done


def settings(argv: Sequence[str]) -> tuple[str, ...]:
    """A command's options, but for those in which the arms differ: where the server is,
    where the output goes, and the tag, which follows from the rest."""
    words = list(argv[argv.index("sglang.bench_serving") + 1 :])
    for name in ("--base-url", "--output-file", "--tag"):
        place = words.index(name)
        del words[place : place + 2]
    return tuple(words)
