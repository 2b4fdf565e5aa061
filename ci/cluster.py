#!/usr/bin/env python3
"""The gate's stages as jobs of a cluster, one each, as soon as what they need is done.

Every job is ``ci/gate.py --only STAGE`` on the one run directory, which all nodes must
see; so what is done is not done again, here either, and a later gate goes on from it.
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
from gatekit.run.scheduling import LOST, Cluster, StageJob, Submits
from gatekit.run.submission import WOULD_RUN, Gate, Planned
from overlaykit.cli import Report, Verb, run, table
from overlaykit.core.errors import EnvironmentFailure, Exit, Finding, InputError
from overlaykit.core.options import whole_number


def options(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--profile", required=True, help="a file of ci/profiles, or the path of one"
    )
    parser.add_argument(
        "--out",
        metavar="DIR",
        type=Path,
        required=True,
        help="the run directory, on a file system that every node sees",
    )
    parser.add_argument(
        "--questions",
        metavar="FILE",
        nargs="+",
        type=Path,
        default=[],
        help="GSM8K's files, in place of the profile's",
    )
    parser.add_argument(
        "--executor",
        choices=("slurm", "local"),
        default="slurm",
        help="local: as processes of this machine (default: %(default)s)",
    )
    parser.add_argument("--partition", help="Slurm's, for every job")
    for name, default, least, what in (
        ("gpus", 8, 0, "GPUs of a job's node"),
        ("minutes", 1440, 1, "a job's limit"),
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
        help="one more of sbatch's options, as account=mine; may be given again",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="show the jobs, submit none"
    )


def cluster(arguments: Namespace) -> Report:
    """Run the stages as jobs, then write the reports of all there is."""
    profile = arguments.profile
    if profile.endswith(".toml"):
        profile = str(Path(profile).resolve())
    questions = tuple(str(path.resolve()) for path in arguments.questions)
    gate = Gate(profile, arguments.out.resolve(), questions)
    if arguments.executor == "slurm":
        _refuse_lines(arguments, gate.out)
    stages = {one.target: one for one in gate.ask("--dry-run").results}
    if arguments.dry_run:
        return Report(verb="cluster", dry_run=True, results=_foretold(gate, stages))
    made = Cluster(
        gate,
        _executor(arguments, gate.out / "jobs"),
        stages,
        gate.images(),
        poll_s=0.2 if arguments.executor == "local" else 15,
    )
    made.run()
    final = gate.ask("--only", "report")
    results = tuple(made.outcomes[name] for name in stages)
    # The gate forgets what could not be run, to run it the next time.
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


def _foretold(gate: Gate, stages: Mapping[str, Planned]) -> tuple[StageJob, ...]:
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


def _executor(arguments: Namespace, folder: Path) -> Submits:
    try:
        import cloudpickle
        import submitit
    except ImportError as error:
        step = "pip install --group slurm"
        finding = Finding(str(error), next_step=step)
        raise EnvironmentFailure("a package is missing", (finding,)) from error
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
        step = "run this where sbatch is, or with --executor local"
        if isinstance(error, OSError):
            step = "permit writing there, or name another folder with --out"
        finding = Finding(str(error), path=str(folder), next_step=step)
        raise EnvironmentFailure("no jobs can be submitted", (finding,)) from error
    made: Submits = executor
    return made


def _refuse_lines(arguments: Namespace, out: Path) -> None:
    """What submitit writes into the script of a job: a line end would begin a command,
    and Slurm replaces a per cent sign in the name of a log. Raises InputError."""
    for word in (arguments.partition or "", *arguments.slurm):
        if not word.isprintable():
            raise InputError(f"no option of sbatch's is {word!r}")
    if "%" in str(out) or not str(out).isprintable():
        raise InputError(f"--out: Slurm cannot write logs below {out}")


def _pairs(words: Iterable[str]) -> Iterable[tuple[str, str]]:
    for word in words:
        key, equals, value = word.partition("=")
        if not key or not equals:
            raise InputError(f"--slurm is KEY=VALUE, not {word}")
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
            "Run the gate's stages as jobs of a Slurm cluster, one each, as soon as "
            "what they need is done, then its reports. The exit code is the gate's.",
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
