#!/usr/bin/env python3
"""Run every stage of the gate on this machine, from a checkout to a verdict.

Finished stages are not run again: if the commands, inputs and series of a stage are the
same as in an earlier run in the same directory, its earlier result is used.
"""

from __future__ import annotations

import sys
import time
from argparse import ArgumentParser, Namespace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))

import overlaykit  # noqa: F401  (first: it sees to what cannot be imported)

# isort: split
import msgspec

from gatekit.records.stage import Stage, placeholders
from gatekit.report.reports import write_reports
from gatekit.report.schema import GateReport, StageReport
from gatekit.run.model import model_path
from gatekit.run.pipeline import Pipeline
from gatekit.run.profile import load
from gatekit.run.runner import Runner
from gatekit.run.store import Store
from gatekit.run.subject import machine, subject, versions
from gatekit.run.verdict import EXITS, verdict
from overlaykit.cli import ROOT, Report, Result, Verb, run, table
from overlaykit.core.errors import Finding, InputError
from overlaykit.core.wording import one_line, pasteable

_REPORT = "report"
_ANY_PORT = 30000


class StageResult(Result, frozen=True, kw_only=True, omit_defaults=True):
    """The result of a stage, or the commands it would run. ``tree`` is its folder."""

    reason: str = ""
    needs: tuple[str, ...] = ()
    commands: tuple[str, ...] = ()
    stands_in: str = ""
    seconds: float = 0


def options(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--profile",
        metavar="NAME",
        required=True,
        help="a profile in ci/profiles, or a path to one",
    )
    parser.add_argument(
        "--out",
        metavar="DIR",
        type=Path,
        help="the run directory (default: build/gate/PROFILE)",
    )
    parser.add_argument(
        "--only",
        metavar="STAGE",
        action="append",
        default=[],
        help="run this stage and the unfinished stages it needs; may be repeated; "
        f"`{_REPORT}` only writes the reports of existing results",
    )
    parser.add_argument(
        "--from",
        dest="first",
        metavar="STAGE",
        help="run this stage and all later stages again, even if they are done",
    )
    parser.add_argument(
        "--resume",
        action="store_true",
        help="continue the run in the run directory; an error if there is none, or if "
        "the series or the code has changed since",
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="print every command that would run, as a script, without running it",
    )
    parser.add_argument(
        "--questions",
        metavar="FILE",
        nargs="+",
        help="GSM8K's files, instead of the profile's",
    )


def gate(arguments: Namespace) -> Report:
    """Run the chosen stages, then write the reports of all results."""
    profile = load(arguments.profile)
    if arguments.questions and profile.gsm8k:
        gsm8k = msgspec.structs.replace(
            profile.gsm8k, files=tuple(map(_question_file, arguments.questions))
        )
        profile = msgspec.structs.replace(profile, gsm8k=gsm8k)
    store = Store(arguments.out or ROOT / "build" / "gate" / profile.name)
    about = subject(ROOT, profile)
    started, clock = time.time(), time.monotonic()
    pipeline = Pipeline(profile, about, store)
    wanted, rerun = _chosen(arguments, [*pipeline.stages])
    runner = Runner(pipeline, wanted, rerun)
    if arguments.resume:
        _require_run(pipeline, store)
    runner.refuse_changed_model()
    if arguments.dry_run:
        return _plan(pipeline, runner)
    if any("model" in pipeline.stages[name].inputs for name in runner.pending):
        model_path(profile.model, must_exist=True)
    stages = tuple(runner.run().values())
    state, reasons = verdict(stages)
    report = GateReport(
        profile=profile.name,
        about=profile.about,
        verdict=state,
        reasons=reasons,
        started=started,
        seconds=round(time.monotonic() - clock, 1),
        command=pasteable(["ci/gate.py", *sys.argv[1:]]),
        subject=about,
        machine=machine(),
        versions=versions(),
        stages=stages,
    )
    written = write_reports(report, store.root)
    findings = tuple(f for stage in stages for f in stage.findings)
    return Report(
        verb="gate",
        exit_code=EXITS[state],
        message="\n".join([f"{state.value}", *reasons, *map(str, written)]),
        results=tuple(_result(pipeline, stage) for stage in stages),
        findings=findings,
    )


def _chosen(arguments: Namespace, names: list[str]) -> tuple[list[str], list[str]]:
    """The stages to run, and those among them to run even if they are done."""
    first = arguments.first
    for name in [*arguments.only, *([first] if first else [])]:
        if name not in (*names, _REPORT):
            listed = ", ".join([*names, _REPORT])
            raise InputError(f"there is no stage {name}; the stages are {listed}")
    if arguments.only and first:
        raise InputError("--only and --from cannot be used together")
    if first:
        rerun = names[names.index(first) :] if first in names else []
        return names, rerun
    if arguments.only:
        return [name for name in arguments.only if name != _REPORT], []
    return names, []


def _question_file(name: str) -> str:
    """The file's path, checked before any stage runs. Raises InputError."""
    path = Path(name).resolve()
    if not path.is_file():
        raise InputError(f"--questions: file not found: {path}")
    return str(path)


def _plan(pipeline: Pipeline, runner: Runner) -> Report:
    results = []
    for name in filter(runner.wanted.__contains__, pipeline.stages):
        stage, done = pipeline.stages[name], runner.known(name)
        outcome = "not run" if stage.why_not else "would run"
        results.append(
            StageResult(
                target=name,
                tree=str(pipeline.folder(name)),
                outcome=f"done: {done.state.value}" if done else outcome,
                reason=stage.why_not,
                needs=stage.needs,
                commands=() if done else _commands(stage, pipeline.folder(name)),
                stands_in=stage.stands_in,
            )
        )
    return Report(verb="gate", dry_run=True, results=tuple(results))


def _commands(stage: Stage, folder: Path) -> tuple[str, ...]:
    """Shell commands that run the stage by hand; the port is fixed, where a run would
    take any free one."""
    known = placeholders(folder, stage.port or _ANY_PORT)
    return (pasteable(["mkdir", "-p", str(folder)]), *stage.lines(known))


def _require_run(pipeline: Pipeline, store: Store) -> None:
    keys = pipeline.keys.items()
    if any(store.folder(name, key).exists() for name, key in keys):
        return
    others = sum(store.others(name, key) for name, key in keys)
    found = "results for another series, code or profile" if others else "nothing"
    finding = Finding(
        "there is no run to resume",
        path=str(store.root),
        expected="a run with this series, code and profile",
        found=found,
        next_step="omit --resume: a new run starts, and existing results are kept",
    )
    raise InputError("cannot resume", (finding,))


def _result(pipeline: Pipeline, stage: StageReport) -> StageResult:
    return StageResult(
        target=stage.name,
        tree=stage.folder,
        outcome=stage.state.value,
        reason=stage.reason,
        needs=pipeline.stages[stage.name].needs,
        stands_in=stage.stands_in,
        seconds=stage.seconds,
    )


def show(report: Report) -> str:
    """The report as a person reads it."""
    results = [r for r in report.results if isinstance(r, StageResult)]
    if report.dry_run:
        blocks = [pasteable(["cd", str(ROOT)])]
        for one in results:
            head = f"# {one.target}: {one.outcome}"
            if one.reason:
                head += f": {one.reason}"
            # A second line of the reason would run as a command.
            blocks.append("\n".join([one_line(head), *one.commands]))
        return "\n\n".join(blocks)
    rows = (
        (r.target, r.outcome, f"{r.seconds:g} s" if r.seconds else "-", r.reason)
        for r in results
    )
    return table(("STAGE", "STATE", "TIME", "WHY"), rows)


if __name__ == "__main__":
    run(
        Verb(
            "Run the gate from a checkout to a verdict: apply, verify, rebuild, serve "
            "both arms, compare answers, traces and speed, and write report.json, "
            "report.md and report.html. Prints pass (exit code 0), fail (1), "
            "inconclusive (4) or error (5). PASS requires every stage to have run and "
            "passed.",
            (
                "ci/gate.py --profile cpu",
                "ci/gate.py --profile mi355x-glm51 --dry-run",
                "ci/gate.py --profile mi355x-glm51 --out /runs/today",
                "ci/gate.py --profile mi355x-glm51 --out /runs/today --resume",
                "ci/gate.py --profile cuda --only numeric --only chain",
            ),
            options,
            gate,
            show,
        )
    )
