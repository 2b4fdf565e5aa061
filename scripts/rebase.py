#!/usr/bin/env python3
"""Rebase the series onto another base, conflict by conflict, and adopt the result."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import overlaykit  # noqa: F401  (first: it reports imports that fail)

# isort: split
import msgspec

from overlaykit.applying.transaction import hold, interrupted
from overlaykit.cli import ROOT, Report, Result, Verb, run, table
from overlaykit.core.documents import to_json
from overlaykit.core.errors import CannotApply, Exit, Finding, InputError
from overlaykit.rebase.adopt import adopt, result_files
from overlaykit.rebase.compute import Rebased
from overlaykit.rebase.drop import drop
from overlaykit.rebase.folder import Work
from overlaykit.rebase.outcomes import HunkOutcome, RebasedHunk
from overlaykit.rebase.requests import begin, new_request, pick
from overlaykit.series.manifest import MANIFEST, check_target_name
from overlaykit.trees.tree import DirectoryTree
from upstream.rebasing import Computed, compute

_INACTIVE = "no rebase is active"


class RebaseResult(Result, frozen=True, omit_defaults=True):
    """One rebase: the outcome of every hunk, and the folder with its files."""

    rebased: tuple[RebasedHunk, ...] = msgspec.field(default=(), name="fates")
    folder: str | None = None


def options(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--onto",
        metavar="VERSION|REF",
        help="the new base: a released version, a full commit id, or with --clone a "
        "commit, branch or tag there",
    )
    parser.add_argument(
        "--clone", metavar="PATH", type=Path, help="the upstream clone with REF"
    )
    parser.add_argument(
        "--target",
        metavar="NAME",
        default="sglang",
        help="the target to rebase (default: sglang); the new base is NAME-VERSION, or "
        "NAME and 12 digits of the commit",
    )
    parser.add_argument(
        "--from",
        dest="start",
        metavar="TARGET",
        help="the base whose series is rebased (default: --target)",
    )
    parser.add_argument(
        "--regenerate",
        action="store_true",
        help="regenerate a hunk from its purpose if its text cannot be merged and the "
        "census knows its site",
    )
    then = parser.add_argument_group(
        "actions on the active rebase", "if there are several, add --onto"
    ).add_mutually_exclusive_group()
    for name, what in (
        ("continue", "use the edited merged file for the conflict and continue"),
        ("skip", "leave out the hunk with the conflict and continue"),
        ("skip-patch", "leave out the whole patch of that hunk and continue"),
        ("status", "show its state; writes nothing"),
        ("abort", "end it and remove its files"),
        ("adopt", "add the new base to the overlay: patches, overlay.toml and lock"),
    ):
        then.add_argument(
            f"--{name}", dest="action", action="store_const", const=name, help=what
        )
    then.add_argument(
        "--drop",
        metavar="NAME",
        help="remove the base NAME from the overlay: its patches, its table in "
        "overlay.toml and its part of the lock; needs no rebase",
    )
    called = parser.add_mutually_exclusive_group()
    called.add_argument(
        "--replace",
        metavar="NAME",
        help="with --adopt: the new base takes the place and the name of the base NAME",
    )
    called.add_argument(
        "--as",
        dest="new_name",
        metavar="NAME",
        help="with --adopt: the new base's name, such as sglang-main",
    )


def rebase_series(arguments: Namespace) -> Report:
    """Begin a rebase, or do the given action with the active one."""
    if interrupted(DirectoryTree(ROOT)):
        with hold(DirectoryTree(ROOT)):
            pass
    names = (arguments.replace, arguments.new_name)
    if names != (None, None) and arguments.action != "adopt":
        raise InputError("--replace and --as belong to --adopt")
    if arguments.drop is not None:
        changes = drop(ROOT, arguments.drop)
        changed = tuple(change.path for change in changes)
        result = RebaseResult(arguments.drop, MANIFEST, "dropped", changed=changed)
        return Report(verb="rebase", results=(result,))
    if arguments.action is None:
        return _begin(arguments)
    work = pick(ROOT, arguments.onto)
    if work is None:
        if arguments.action == "status":
            return Report(verb="rebase", message=_INACTIVE)
        finding = Finding(_INACTIVE, next_step="begin one with --onto")
        raise InputError(_INACTIVE, (finding,))
    if arguments.action == "abort":
        work.remove()
        result = RebaseResult(work.request.name, work.request.onto, "aborted")
        return Report(verb="rebase", results=(result,))
    if arguments.action == "status":
        return _report(work, compute(ROOT, work.request, work.resolutions()))
    if arguments.action == "adopt":
        return _adopt(work, *names)
    return _continue(work, arguments.action)


def _begin(arguments: Namespace) -> Report:
    a = arguments
    if a.onto is None:
        raise InputError("name the new base with --onto, or an action")
    start = a.start or a.target
    request = new_request(ROOT, a.target, start, a.onto, a.clone, a.regenerate)
    work = begin(ROOT, request)
    resolutions = work.resolutions()
    return _finish(work, resolutions, compute(ROOT, request, resolutions))


def _continue(work: Work, action: str) -> Report:
    resolutions = work.resolutions()
    computed = compute(ROOT, work.request, resolutions)
    conflict = computed.done.conflict
    if conflict is not None:
        before = resolutions
        if action == "skip-patch":
            resolutions = {**before, conflict.patch.sha256: None}
        else:
            resolutions = work.resolved(conflict, before, action == "skip")
        if resolutions != before:
            computed = compute(ROOT, work.request, resolutions)
    return _finish(work, resolutions, computed)


def _finish(
    work: Work, resolutions: Mapping[str, bytes | None], computed: Computed
) -> Report:
    """Report what was computed, then write it."""
    report = _report(work, computed)
    done, made = computed.done, computed.made
    if not done.conflict and not done.series.patches:
        if work.folder.exists():
            work.remove()
        return report
    files = {"report.json": to_json(report) + b"\n"}
    if made is not None:
        files |= result_files(made, computed.start)
    work.write(resolutions, done.conflict, files)
    return report


def _adopt(work: Work, replaced: str | None, name: str | None) -> Report:
    computed = compute(ROOT, work.request, work.resolutions())
    report = _report(work, computed)
    if computed.made is None or computed.findings:
        why = "the rebase is not finished"
        if computed.done.conflict is None:
            why = "nothing is left to carry"
        if computed.findings:
            why = "the result is not what the series promises"
        what = f"{work.request.name} cannot be adopted: {why}"
        raise CannotApply(what, report.findings)
    made = computed.made
    if name is not None:
        check_target_name(name)
        made = replace(made, name=name)
    changes = adopt(ROOT, made, computed.start, replaced)
    work.remove()
    note = "run scripts/fetch.py, apply.py and verify.py on it, then commit the changes"
    if replaced is not None and (ROOT / "build" / replaced).exists():
        note = f"build/{replaced} has the old base: move it away, then {note}"
    result = RebaseResult(
        replaced or made.name,
        work.request.onto,
        "adopted" if changes else "adopted already",
        changed=tuple(change.path for change in changes),
        notes=(note,),
        rebased=computed.done.hunks,
    )
    return Report(verb="rebase", results=(result,))


def _report(work: Work, computed: Computed) -> Report:
    done, conflict = computed.done, computed.done.conflict
    findings = computed.findings
    if conflict is not None:
        outcome, findings = "stopped at a conflict", (work.finding(conflict),)
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
        f"regenerated, not merged: {hunk.patch} hunk {hunk.number}; review it"
        for hunk in done.hunks
        if hunk.outcome is HunkOutcome.REGENERATED
    )


def show(report: Report) -> str:
    """The report as text."""
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
            "Rebase the series onto another base, under a new name. The overlay does "
            "not change before --adopt.",
            (
                "scripts/rebase.py --onto 0.5.12.post1",
                "scripts/rebase.py --onto main --clone ~/src/sglang --regenerate",
                "scripts/rebase.py --continue",
                "scripts/rebase.py --adopt",
                "scripts/rebase.py --adopt --as sglang-main",
                "scripts/rebase.py --adopt --replace sglang-main",
                "scripts/rebase.py --drop sglang-0.5.12.post1",
            ),
            options,
            rebase_series,
            show,
            reports_effects=True,
        )
    )
