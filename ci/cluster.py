#!/usr/bin/env python3
"""Run each stage of the gate as a cluster job, once the stages it needs are done.

Every job runs ``ci/gate.py --only STAGE`` in one run directory, which all nodes must
see. Finished stages are not run again, here or by a later ``ci/gate.py``.
"""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterable, Mapping
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))

import overlaykit  # noqa: F401  (first: it sees to what cannot be imported)

# isort: split
from gatekit.run import job
from gatekit.run.scheduling import LOST, Cluster, Executor, StageJob
from gatekit.run.submission import WOULD_RUN, Gate, Planned
from overlaykit.cli import Report, Verb, run, table
from overlaykit.core.errors import EnvironmentFailure, Exit, Finding, InputError
from overlaykit.core.options import whole_number
from overlaykit.core.python import needs


def options(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--profile", required=True, help="a profile in ci/profiles, or a path to one"
    )
    parser.add_argument(
        "--out",
        metavar="DIR",
        type=Path,
        required=True,
        help="the run directory, on a file system that every node can see",
    )
    parser.add_argument(
        "--questions",
        metavar="FILE",
        nargs="+",
        type=Path,
        default=[],
        help="GSM8K's files, instead of the profile's",
    )
    parser.add_argument(
        "--executor",
        choices=("slurm", "local"),
        default="slurm",
        help="local: run jobs as processes on this machine (default: %(default)s)",
    )
    parser.add_argument("--partition", help="the Slurm partition for every job")
    for name, default, least, what in (
        ("gpus", 8, 0, "GPUs for each job"),
        ("minutes", 1440, 1, "time limit of each job"),
    ):
        parser.add_argument(
            f"--{name}",
            metavar="N",
            type=whole_number(least),
            default=default,
            help=f"{what} (default: %(default)s)",
        )
    parser.add_argument(
        "--slurm",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        help="another option for sbatch, such as account=mine; may be repeated",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="show the jobs without submitting them"
    )


def cluster(arguments: Namespace) -> Report:
    """Run the stages as jobs, then write the reports of all results."""
    profile = arguments.profile
    if profile.endswith(".toml"):
        profile = str(Path(profile).resolve())
    questions = tuple(str(path.resolve()) for path in arguments.questions)
    gate = Gate(profile, arguments.out.resolve(), questions)
    if arguments.executor == "slurm":
        _refuse_unsafe_options(arguments, gate.out)
    stages = {one.target: one for one in gate.call("--dry-run").results}
    if arguments.dry_run:
        return Report(verb="cluster", dry_run=True, results=_planned_jobs(gate, stages))
    jobs = Cluster(
        gate,
        _executor(arguments, gate.out / "jobs"),
        stages,
        gate.images(),
        poll_s=0.2 if arguments.executor == "local" else 15,
    )
    jobs.run()
    final = gate.call("--only", "report")
    results = tuple(jobs.outcomes[name] for name in stages)
    # The gate keeps no result of a lost job, so that the next run repeats it.
    lost = [one for one in results if one.outcome == LOST]
    code = final.exit_code
    if lost and code is not Exit.FAILS:
        code = Exit.ENVIRONMENT
    return Report(
        verb="cluster",
        exit_code=code,
        results=results,
        findings=(
            *final.findings,
            *(Finding(f"{one.target}: {one.reason}", path=one.tree) for one in lost),
        ),
        message=final.message,
    )


def _planned_jobs(gate: Gate, stages: Mapping[str, Planned]) -> tuple[StageJob, ...]:
    waves: dict[str, int] = {}
    for name, stage in stages.items():
        waves[name] = 1 + max((waves[need] for need in stage.needs), default=0)
    return tuple(
        StageJob(
            target=name,
            tree="",
            outcome=stage.outcome,
            needs=stage.needs,
            reason=stage.reason,
            wave=waves[name],
            command=tuple(gate.command("--only", name))
            if stage.outcome == WOULD_RUN
            else (),
        )
        for name, stage in stages.items()
    )


def _executor(arguments: Namespace, folder: Path) -> Executor:
    with needs("slurm"):
        import cloudpickle
        import submitit
    cloudpickle.register_pickle_by_value(job)
    more = dict(_pairs(arguments.slurm))
    if arguments.executor == "local" and (more or arguments.partition):
        raise InputError("--partition and --slurm are for --executor slurm")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        executor = submitit.AutoExecutor(folder / "%j", cluster=arguments.executor)
        executor.update_parameters(
            name="gate",
            nodes=1,
            tasks_per_node=1,
            gpus_per_node=arguments.gpus,
            timeout_min=arguments.minutes,
        )
        if arguments.executor == "slurm":
            executor.update_parameters(
                slurm_partition=arguments.partition,
                slurm_additional_parameters=more,
            )
    except (OSError, RuntimeError) as error:
        step = "run this on a machine with sbatch, or use --executor local"
        if isinstance(error, OSError):
            step = "make the folder writable, or choose another with --out"
        finding = Finding(str(error), path=str(folder), next_step=step)
        raise EnvironmentFailure("cannot submit jobs", (finding,)) from error
    typed: Executor = executor
    return typed


def _refuse_unsafe_options(arguments: Namespace, out: Path) -> None:
    """Refuse text that would change the job script that submitit writes: a line end
    would start a command, and Slurm expands a percent sign in a log's name. Raises
    InputError."""
    for word in (arguments.partition or "", *arguments.slurm):
        if not word.isprintable():
            raise InputError(f"{word!r} is not an option for sbatch")
    if "%" in str(out) or not str(out).isprintable():
        raise InputError(f"--out: Slurm cannot write logs below {out}")


def _pairs(words: Iterable[str]) -> Iterable[tuple[str, str]]:
    for word in words:
        key, equals, value = word.partition("=")
        if not key or not equals:
            raise InputError(f"--slurm must be KEY=VALUE, not {word}")
        yield key, value


def show(report: Report) -> str:
    """The report as a person reads it."""
    jobs = [one for one in report.results if isinstance(one, StageJob)]
    if report.dry_run:
        return table(
            ("WAVE", "STAGE", "NEEDS", "JOB"),
            (
                (
                    str(one.wave),
                    one.target,
                    ", ".join(one.needs) or "-",
                    f"gate.py --only {one.target}"
                    if one.command
                    else f"{one.outcome}: {one.reason}",
                )
                for one in jobs
            ),
        )
    return table(
        ("STAGE", "STATE", "JOB", "WHY"),
        ((one.target, one.outcome, one.job or "-", one.reason) for one in jobs),
    )


if __name__ == "__main__":
    run(
        Verb(
            "Run each stage of the gate as a Slurm job, once the stages it needs are "
            "done, then write the reports. The exit code is the gate's.",
            (
                "ci/cluster.py --profile mi355x-glm51 --out /shared/run --dry-run",
                "ci/cluster.py --profile mi355x-glm51 --out /shared/run \\",
                "    --partition mi355x --slurm account=mine --slurm exclusive=user",
                "ci/cluster.py --profile cpu --out build/gate/run --executor local",
            ),
            options,
            cluster,
            show,
        )
    )
