#!/usr/bin/env python3
"""Re-make the series for another base, conflict by conflict, and adopt the result."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Mapping
from pathlib import Path

import msgspec

from overlaykit.applying.transaction import hold, interrupted
from overlaykit.cli import ROOT, Report, Result, Verb, run, table
from overlaykit.core.documents import to_json
from overlaykit.core.errors import CannotApply, Exit, Finding, InputError
from overlaykit.core.versions import order
from overlaykit.rebase.adopt import adopt, series_files, target_table
from overlaykit.rebase.bases import resolve
from overlaykit.rebase.compute import Rebased
from overlaykit.rebase.conflicts import Conflict, check_resolution
from overlaykit.rebase.folder import (
    Request,
    Work,
    active_rebases,
    merged_name,
    rebases_folder,
)
from overlaykit.rebase.outcomes import HunkOutcome, RebasedHunk
from overlaykit.series.carried import load_overlay
from overlaykit.trees.tree import DirectoryTree
from upstream.remaking import Computed, compute


class RebaseResult(Result, frozen=True, omit_defaults=True):
    """One rebase: what became of every hunk, and where its files are."""

    rebased: tuple[RebasedHunk, ...] = msgspec.field(default=(), name="fates")
    folder: str | None = None


def options(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--onto",
        metavar="VERSION|REF",
        help="the new base: a released version, or with --clone a commit",
    )
    parser.add_argument(
        "--clone", metavar="PATH", type=Path, help="the upstream clone that has REF"
    )
    parser.add_argument(
        "--target",
        metavar="NAME",
        default="sglang",
        help="what is carried (default sglang); the new base is NAME-VERSION",
    )
    parser.add_argument(
        "--from",
        dest="start",
        metavar="TARGET",
        help="the base whose series is carried over (default: --target)",
    )
    parser.add_argument(
        "--regenerate",
        action="store_true",
        help="make a hunk anew from what it is for, where its text cannot be merged "
        "and the census knows its site",
    )
    then = parser.add_argument_group(
        "a rebase under way", "with --onto where there is more than one"
    ).add_mutually_exclusive_group()
    for name, what in (
        ("continue", "take the edited merged file for the conflict, and go on"),
        ("skip", "leave the hunk of the conflict out, and go on"),
        ("status", "say how far it is; writes nothing"),
        ("abort", "end it, without a trace"),
        ("adopt", "carry the new base from now on: patches, overlay.toml and lock"),
    ):
        then.add_argument(
            f"--{name}", dest="action", action="store_const", const=name, help=what
        )


def rebase_series(arguments: Namespace) -> Report:
    """Begin a rebase, or do what is asked with one that is under way."""
    if interrupted(DirectoryTree(ROOT)):
        with hold(DirectoryTree(ROOT)):
            pass
    if arguments.action is None:
        return _begin(arguments)
    work = _pick(arguments)
    if work is None:
        if arguments.action == "status":
            return Report(verb="rebase", message="no rebase is under way")
        step = "begin one with --onto"
        finding = Finding("no rebase is under way", next_step=step)
        raise InputError("no rebase is under way", (finding,))
    if arguments.action == "abort":
        work.remove()
        outcome = "aborted"
        result = RebaseResult(work.request.name, work.request.onto, outcome)
        return Report(verb="rebase", results=(result,))
    if arguments.action == "status":
        return _report(work, compute(ROOT, work.request, work.resolutions()))
    if arguments.action == "adopt":
        return _adopt(work)
    return _go_on(work, skip=arguments.action == "skip")


def _begin(arguments: Namespace) -> Report:
    if arguments.onto is None:
        raise InputError("name the new base with --onto, or what to do with a rebase")
    overlay = load_overlay(ROOT)
    start = arguments.start or arguments.target
    for name in (arguments.target, start):
        if name not in overlay:
            known = ", ".join(overlay)
            raise InputError(f"no target {name}; overlay.toml has {known}")
    if overlay[start].target.package != overlay[arguments.target].target.package:
        raise InputError(f"{start} is not a base of {arguments.target}")
    clone = arguments.clone.resolve() if arguments.clone else None
    commit = resolve(clone, arguments.onto) if clone else None
    if commit is None:
        order(arguments.onto)
        if arguments.onto == overlay[start].target.dist.version:
            raise InputError(f"{start} is carried on {arguments.onto} already")
    request = Request(
        f"{arguments.target}-{commit[:12] if commit else arguments.onto}",
        arguments.onto,
        arguments.target,
        start,
        arguments.regenerate,
        str(clone) if clone else None,
        commit,
    )
    for work in active_rebases(ROOT):
        if work.request.name == request.name and work.request != request:
            step = "end that one with --abort, or ask for the same again"
            finding = Finding(
                "was begun with other options", path=str(work.folder), next_step=step
            )
            raise InputError(f"a rebase {request.name} is under way", (finding,))
    work = Work(rebases_folder(ROOT) / request.name, request)
    resolutions = work.resolutions()
    return _write(work, resolutions, compute(ROOT, request, resolutions))


def _pick(arguments: Namespace) -> Work | None:
    works = [
        work
        for work in active_rebases(ROOT)
        if arguments.onto in (None, work.request.onto, work.request.commit)
    ]
    if len(works) > 1:
        names = ", ".join(work.request.onto for work in works)
        finding = Finding(
            "more than one", found=names, next_step="name one with --onto"
        )
        raise InputError(f"{len(works)} rebases are under way", (finding,))
    return works[0] if works else None


def _go_on(work: Work, skip: bool) -> Report:
    resolutions = work.resolutions()
    computed = compute(ROOT, work.request, resolutions)
    conflict = computed.done.conflict
    if conflict is not None:
        edited = work.edited(conflict)
        if skip:
            resolutions[conflict.id] = None
        elif edited is not None:
            name, data = edited
            check_resolution(conflict, data, name)
            resolutions[conflict.id] = None if data == conflict.upstream else data
        if conflict.id in resolutions:
            computed = compute(ROOT, work.request, resolutions)
    return _write(work, resolutions, computed)


def _adopt(work: Work) -> Report:
    computed = compute(ROOT, work.request, work.resolutions())
    report = _report(work, computed)
    if work.request.commit is not None:
        what = f"{work.request.onto} is a commit: a base is a released version"
        step = "rebase onto the release that holds it; its series may be used as it is"
        finding = Finding(what, path=str(work.folder / "patches"), next_step=step)
        raise InputError(what, (finding,))
    if computed.made is None or computed.findings:
        what = "cannot be adopted: it is not finished"
        if computed.done.conflict is None:
            what = "cannot be adopted: nothing is left to carry"
        if computed.findings:
            what = "cannot be adopted: the result is not what the series promises"
        raise CannotApply(f"{work.request.name} {what}", report.findings)
    changes = adopt(ROOT, computed.made, computed.start)
    work.remove()
    result = RebaseResult(
        work.request.name,
        work.request.onto,
        "adopted" if changes else "adopted already",
        changed=tuple(change.path for change in changes),
        notes=(
            "run scripts/fetch.py, apply.py and verify.py on it; commit the change",
        ),
        rebased=computed.done.hunks,
    )
    return Report(verb="rebase", results=(result,))


# --- what is written and said ---------------------------------------------------------


def _write(
    work: Work, resolutions: Mapping[str, bytes | None], computed: Computed
) -> Report:
    report = _report(work, computed)
    if not computed.done.conflict and not computed.done.series.patches:
        if work.folder.exists():
            work.remove()
        return report
    results = {"report.json": to_json(report) + b"\n"}
    made = computed.made
    if made is not None:
        files = series_files(made.series)
        results |= {f"patches/{name}": data for name, data in files.items()}
        if work.request.commit is None:
            table_ = target_table(made.name, made.target, computed.start)
            results["target.toml"] = table_.encode()
            results["target.lock"] = to_json(made.lock, sort=True) + b"\n"
    work.write(resolutions, computed.done.conflict, results)
    return report


def _report(work: Work, computed: Computed) -> Report:
    done, conflict = computed.done, computed.done.conflict
    findings = computed.findings
    if conflict is not None:
        outcome, findings = "stopped at a conflict", (_stopped(work, conflict),)
    elif findings:
        outcome = "refused: the result is not what the series promises"
    elif not done.series.patches:
        outcome = "retired: nothing is left to carry"
    else:
        outcome = "rebased"
    result = RebaseResult(
        work.request.name,
        work.request.onto,
        outcome,
        notes=computed.notes + _regenerated(done),
        rebased=done.hunks,
        folder=str(work.folder) if conflict or computed.made else None,
    )
    return Report(
        verb="rebase",
        exit_code=Exit.CANNOT_APPLY if findings else Exit.DONE,
        results=(result,),
        findings=findings,
    )


def _regenerated(done: Rebased) -> tuple[str, ...]:
    return tuple(
        f"regenerated, not merged: {hunk.patch} hunk {hunk.number}, read it"
        for hunk in done.hunks
        if hunk.outcome is HunkOutcome.REGENERATED
    )


def _stopped(work: Work, conflict: Conflict) -> Finding:
    plan = conflict.plan
    name = merged_name(conflict)
    step = "scripts/rebase.py --skip leaves the hunk out; --abort ends the rebase"
    if name is not None:
        step = f"edit {work.folder / name}, then --continue; {step}"
    return Finding(
        f"{plan.state.value}: the hunk cannot be carried over",
        path=conflict.path or plan.path,
        line=plan.line,
        patch=plan.patch,
        hunk=plan.number,
        scope=plan.scope,
        site=" ".join(plan.sites) or None,
        expected="its change, in its place",
        found=plan.detail.partition("\n")[0].rstrip(":"),
        next_step=step,
    )


def show(report: Report) -> str:
    """The report as a person reads it."""
    blocks = []
    for result in report.results:
        assert isinstance(result, RebaseResult)
        lines = [f"{result.target}: {result.outcome}"]
        if result.rebased:
            rows = (
                (
                    hunk.patch.removesuffix(".patch"),
                    str(hunk.number),
                    (hunk.path or hunk.was_path).rpartition("/")[2],
                    hunk.scope,
                    " ".join(hunk.sites) or "-",
                    hunk.outcome.value,
                    hunk.landing.value if hunk.kept and hunk.landing else hunk.detail,
                )
                for hunk in result.rebased
            )
            header = ("PATCH", "HUNK", "FILE", "SCOPE", "SITES", "OUTCOME", "HOW")
            lines.append(table(header, rows))
        lines += [f"  changed  {path}" for path in result.changed]
        lines += [f"  {note}" for note in result.notes]
        if result.folder:
            lines.append(f"  in       {result.folder}")
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)


if __name__ == "__main__":
    run(
        Verb(
            "Re-make the series for another base, under a name of its own; the current "
            "one is not touched before --adopt.",
            (
                "scripts/rebase.py --onto 0.5.12.post1",
                "scripts/rebase.py --onto main --clone ~/src/sglang --regenerate",
                "scripts/rebase.py --continue",
                "scripts/rebase.py --adopt",
            ),
            options,
            rebase_series,
            show,
            tells=True,
        )
    )
