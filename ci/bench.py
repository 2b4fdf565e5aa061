#!/usr/bin/env python3
"""Is serving as fast as before? Run the benchmark on both arms, and decide.

``run`` makes the runs of ``sglang.bench_serving`` with its traps closed, interleaved,
each recorded as it ends. ``compare`` takes the runs in pairs and says pass, fail or
inconclusive; runs that prove nothing are invalid, never left out.
"""

from __future__ import annotations

import hashlib
import shlex
import sys
from argparse import Namespace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))

import records
from overlaykit.cli import Report, Verb, run
from overlaykit.errors import EnvironmentFailure, Exit, Finding, InputError
from serving.command import ARMS
from serving.options import COMPARE_EXAMPLES, RUN_EXAMPLES, options
from serving.plan import Arm, Bench, RunResult, remaining
from serving.points import Point, parse
from serving.running import execute
from serving.showing import show


def bench(arguments: Namespace) -> Report:
    """Run or compare."""
    points = tuple(parse(text) for text in arguments.points)
    if len(set(points)) < len(points):
        raise InputError("--points names a point twice")
    if arguments.action == "run":
        return _run(arguments, points)
    return _compare(arguments, points)


def _arms(arguments: Namespace) -> tuple[Arm, ...]:
    given = vars(arguments)
    arms = []
    for name in ARMS:
        url, start = given[name], given[f"{name}_start"]
        told = [what for what in ("tree", "series", "image") if given[f"{name}_{what}"]]
        if url is None:
            if start or told:
                raise InputError(f"--{name} must say where the {name} serves")
            continue
        if not url.startswith(("http://", "https://")):
            raise InputError(f"--{name} is an http:// or https:// URL, not {url}")
        digest = hashlib.sha256((start or "").encode()).hexdigest()
        origin = records.Origin(
            command=f"sha256:{digest}" if start else "",
            **{what: given[f"{name}_{what}"] for what in told},
        )
        arms.append(Arm(name, url.rstrip("/"), tuple(shlex.split(start or "")), origin))
    if not arms:
        raise InputError("name --baseline, --candidate or both")
    return tuple(arms)


def _run(arguments: Namespace, points: tuple[Point, ...]) -> Report:
    if arguments.rounds < 1:
        raise InputError("--rounds is at least 1")
    arms = _arms(arguments)
    extra = tuple(shlex.split(arguments.client_options))
    out = arguments.out.resolve()
    plan = Bench(arms, points, arguments.rounds, out, arguments.python, extra)
    left, done = remaining(plan)
    _say(f"{len(left)} runs to make, {len(done)} recorded")
    if arguments.dry_run:
        commands = tuple(shlex.join(plan.argv(one)) for one in left)
        result = RunResult(
            target="serving", tree=str(out), outcome="not run", commands=commands
        )
        return Report(
            verb="bench",
            dry_run=True,
            results=(result,),
            message=f"{len(commands)} commands, none run",
        )
    made = tuple(execute(plan, _say))
    runs = (*done, *made)
    findings = tuple(
        Finding(
            f"{one.measurement.point} {one.arm} round {one.round}: {fault}",
            path=str(plan.records),
            next_step="find out why, and measure anew with another --out: a run is "
            "not made again until it looks well",
        )
        for one in runs
        for fault in one.measurement.faults
    )
    return Report(
        verb="bench",
        exit_code=Exit.INVALID if findings else Exit.DONE,
        results=(
            RunResult(
                target="serving",
                tree=str(out),
                outcome="invalid" if findings else "run",
                runs=runs,
            ),
        ),
        findings=findings,
        message=f"{len(made)} runs made, {len(runs)} recorded in {plan.records}",
    )


def _compare(arguments: Namespace, points: tuple[Point, ...]) -> Report:
    # Half a second, and packages that a run does not need.
    try:
        from serving.comparison import Verdict, compare
    except ImportError as error:
        raise EnvironmentFailure(
            f"compare needs {error.name}: pip install -r requirements-gate.txt"
        ) from error
    from serving.evidence import of_outputs, of_records

    if not 0 < arguments.margin < 100:
        raise InputError("--margin is between 0 and 100 percent")
    if not 0 < arguments.alpha < 0.5:
        raise InputError("--alpha is between 0 and 0.5")
    outputs = [(arm, vars(arguments)[arm]) for arm in ARMS]
    if arguments.records:
        if any(paths for _, paths in outputs):
            raise InputError("name a directory, or the output files of both arms")
        path = arguments.records / "records.jsonl"
        runs = of_records(path)
        if not runs:
            raise InputError(f"no run is recorded in {path}")
    elif all(paths for _, paths in outputs):
        runs = [one for arm, paths in outputs for one in of_outputs(arm, paths)]
    else:
        raise InputError("name a directory, or the output files of both arms")
    result = compare(runs, points, arguments.margin / 100, arguments.alpha)
    exits = {Verdict.PASS: Exit.DONE, Verdict.FAIL: Exit.FAILS}
    message = f"{result.verdict.value}: {len(points)} points, {result.rounds} rounds"
    if result.rounds_to_decide:
        message += f"; {result.rounds_to_decide} rounds in all would decide"
    return Report(
        verb="bench",
        exit_code=exits.get(result.verdict, Exit.INVALID),
        results=(result,),
        findings=tuple(
            Finding(f"{result.verdict.value}: {reason}") for reason in result.reasons
        ),
        message=message,
    )


def _say(what: str) -> None:
    print(what, file=sys.stderr, flush=True)


if __name__ == "__main__":
    run(
        Verb(
            "Run sglang.bench_serving on a baseline and a candidate, and decide "
            "whether the candidate serves as fast. compare says pass (exit code 0), "
            "fail (1), or inconclusive or invalid (4).",
            RUN_EXAMPLES + COMPARE_EXAMPLES,
            options,
            bench,
            show,
        )
    )
