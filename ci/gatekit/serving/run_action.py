"""``ci/bench.py run``."""

from __future__ import annotations

import shlex
from argparse import Namespace
from dataclasses import replace
from typing import Any

from gatekit.records import origins, urls
from gatekit.records import runs as records
from gatekit.serving.command import ARMS
from gatekit.serving.plan import Arm, Bench, ServingRun, remaining
from gatekit.serving.points import Point
from gatekit.serving.running import execute
from overlaykit.cli import ROOT, Report, Result, say, table
from overlaykit.core.errors import Exit, Finding, InputError
from overlaykit.core.wording import pasteable

_LONGEST_S = 1_000_000_000


class RunResult(Result, frozen=True, kw_only=True):
    """The commands of a dry run, or the recorded runs."""

    commands: tuple[str, ...] = ()
    runs: tuple[ServingRun, ...] = ()


def call(arguments: Namespace, points: tuple[Point, ...]) -> Report:
    """Make the runs that are not recorded yet; invalid if one has a fault."""
    if arguments.rounds < 1:
        raise InputError("--rounds must be at least 1")
    for deadline in (arguments.run_deadline, arguments.start_deadline):
        if not 0 < deadline <= _LONGEST_S:
            raise InputError(
                f"a deadline must be more than 0 and at most {_LONGEST_S} seconds"
            )
    plan = Bench(
        arms=_arms(arguments),
        points=points,
        rounds=arguments.rounds,
        out=arguments.out.resolve(),
        host=arguments.host,
        python=_words("--python", arguments.python),
        extra=_words("--client-options", arguments.client_options),
        run_timeout_s=arguments.run_deadline,
        start_timeout_s=arguments.start_deadline,
    )
    left, done = remaining(plan)
    say(f"{len(left)} runs to make, {len(done)} recorded")
    if arguments.dry_run:
        commands = tuple(_commands(plan))
        return Report(
            verb="bench",
            dry_run=True,
            results=(_result(plan, "not run", commands=commands),),
            message=f"{len(commands)} commands, not run",
        )
    runs = list(done)
    try:
        for run in execute(plan, say):
            runs.append(run)
    except KeyboardInterrupt:
        return Report(
            verb="bench",
            exit_code=Exit.INTERRUPTED,
            results=(_result(plan, "interrupted", runs=tuple(runs)),),
            message=f"interrupted: {len(runs)} runs recorded in {plan.records}; run "
            "the same command again to resume",
        )
    findings = tuple(
        replace(
            fault,
            what=f"{one.measurement.point} {one.arm} round {one.round}: {fault.what}",
            path=fault.path or str(plan.records),
            next_step="find the cause, then measure again with another --out: "
            "repeating a run until it looks good would bias the result",
        )
        for one in runs
        for fault in one.measurement.faults
    )
    outcome = "invalid" if findings else "run"
    return Report(
        verb="bench",
        exit_code=Exit.INVALID if findings else Exit.DONE,
        results=(_result(plan, outcome, runs=tuple(runs)),),
        findings=findings,
        message=f"{len(left)} runs made, {len(runs)} recorded in {plan.records}",
    )


def _result(
    plan: Bench,
    outcome: str,
    commands: tuple[str, ...] = (),
    runs: tuple[ServingRun, ...] = (),
) -> RunResult:
    return RunResult(
        target="serving",
        tree=str(plan.out),
        outcome=outcome,
        commands=commands,
        runs=runs,
    )


def _arms(arguments: Namespace) -> tuple[Arm, ...]:
    given = vars(arguments)
    arms = []
    for name in ARMS:
        url, start = given[name], given[f"{name}_start"]
        if url is None:
            named = ("start", "source", "tree", "series", "image", "command")
            if any(given[f"{name}_{what}"] for what in named):
                raise InputError(f"--{name} is missing: give the URL of the {name} arm")
            continue
        words = _words(f"--{name}-start", start)
        arms.append(
            Arm(name, urls.checked(f"--{name}", url), words, _origin(name, given))
        )
    if not arms:
        raise InputError(f"give {' or '.join(f'--{arm}' for arm in ARMS)}, or both")
    if len({arm.url for arm in arms}) < len(arms) and not all(a.start for a in arms):
        finding = Finding(
            "one server would be measured as both arms",
            path=arms[0].url,
            next_step="give two URLs, or both --baseline-start and --patched-start, "
            "which then serve in turn",
        )
        raise InputError("both arms are served at one URL", (finding,))
    return tuple(arms)


def _origin(name: str, given: dict[str, Any]) -> records.Origin:
    origin = {what: given[f"{name}_{what}"] for what in ("tree", "series", "image")}
    origin["command"] = records.command_digest(
        given[f"{name}_command"] or given[f"{name}_start"]
    )
    if source := given[f"{name}_source"]:
        if origin["tree"] or origin["series"]:
            raise InputError(
                f"--{name}-source cannot be combined with --{name}-tree or "
                f"--{name}-series"
            )
        read = origins.of_trees(source, ROOT)
        origin |= {"tree": read.tree, "series": read.series}
    return records.Origin(**origin)


def _words(option: str, text: str) -> tuple[str, ...]:
    try:
        return tuple(shlex.split(text))
    except ValueError as error:
        raise InputError(
            f"{option} is not a valid command line: {error}: {text}"
        ) from error


def _commands(plan: Bench) -> list[str]:
    """The commands in order; the start of a server comes before its runs."""
    left, _ = remaining(plan)
    commands = []
    serving = None
    for run in left:
        start = plan.arm(run.arm).start
        if start and serving != (run.arm, run.round):
            serving = (run.arm, run.round)
            commands.append(f"{pasteable(start)}  # stopped after its runs")
        commands.append(pasteable(plan.argv(run)))
    return commands


def show(report: Report) -> str:
    """The report as a person reads it."""
    (result,) = report.results
    if not isinstance(result, RunResult):
        return ""
    if result.commands or not result.runs:
        return "\n".join(result.commands)
    header = ("POINT", "ARM", "ROUND", "tok/s", "TPOT ms", "TTFT ms", "FAULTS")
    rows = (
        (
            str(run.measurement.point),
            run.arm,
            str(run.round),
            f"{run.measurement.throughput:.1f}",
            f"{run.measurement.median_tpot_ms:.3f}",
            f"{run.measurement.median_ttft_ms:.1f}",
            "; ".join(one.what for one in run.measurement.faults) or "-",
        )
        for run in result.runs
    )
    return table(header, rows)
