#!/usr/bin/env python3
"""Export the series as a quilt directory, a mailbox, a branch or a pull request, or an
audit of upstream's guard as the text of one."""

from __future__ import annotations

import os
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping
from pathlib import Path

from overlaykit.applying.targets import find_targets
from overlaykit.cli import ROOT, Report, Result, Verb, run
from overlaykit.core.errors import Finding, InputError
from overlaykit.core.wording import one_line
from overlaykit.export.formats import export_branch, export_quilt, mailbox, write_new
from overlaykit.export.pullrequest import pull_request
from overlaykit.series.carried import Carried, load_overlay, target_named
from xscale.audit import audits_in, rendered


def options(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--target",
        metavar="NAME",
        help="the target in overlay.toml; with --clone, the clone shows which one",
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--quilt",
        metavar="DIR",
        type=Path,
        help="write a self-contained patches directory for quilt; DIR must be empty or "
        "missing",
    )
    what.add_argument(
        "--mbox",
        metavar="FILE",
        type=Path,
        help="write a self-contained mailbox for git am; FILE must not exist",
    )
    what.add_argument(
        "--branch",
        metavar="NAME",
        help="create a branch in --clone, one commit per patch, on the pinned commit "
        "or tag, or else on HEAD; the work tree stays as it is",
    )
    what.add_argument(
        "--audit",
        metavar="REPORT",
        type=Path,
        help="write what opening a dead guard meets, for the pull request that opens "
        "it; REPORT is the JSON of verify.py --open, and --pr-body names the file",
    )
    parser.add_argument(
        "--clone", metavar="PATH", type=Path, help="the clone that gets the branch"
    )
    parser.add_argument(
        "--pr-body",
        metavar="FILE",
        type=Path,
        help="write the text of a pull request, from the patch headers, with a note of "
        "what was not run; FILE must not exist",
    )


def export(arguments: Namespace) -> Report:
    """Write the exports."""
    a = arguments
    if (a.branch is None) != (a.clone is None):
        what = "--branch and --clone belong together"
        raise _usage(what, "give both: --branch NAME --clone PATH")
    if a.audit is not None:
        return _export_audit(a.audit, a.pr_body)
    carried = _carried(arguments)
    # Check this first: if the text cannot be written, write no series either.
    if a.pr_body is not None and os.path.lexists(a.pr_body):
        raise _usage("already exists", "name another file", a.pr_body)
    results = []

    def wrote(path: Path, outcome: str, *changed: str) -> None:
        results.append(Result(carried.name, str(path), outcome, changed=changed))

    if a.quilt is not None:
        wrote(a.quilt, "quilt series", *export_quilt(carried, a.quilt))
    elif a.mbox is not None:
        write_new(a.mbox, mailbox(carried))
        wrote(a.mbox, "mailbox")
    else:
        tip = export_branch(carried, a.clone, a.branch)
        wrote(a.clone, f"branch {a.branch}, {tip}")
    if a.pr_body is not None:
        write_new(a.pr_body, pull_request(carried))
        wrote(a.pr_body, "pull request text")
    return Report(verb="export", results=tuple(results))


def _export_audit(report: Path, body: Path | None) -> Report:
    if body is None:
        raise _usage("--audit needs --pr-body", "give --pr-body FILE, a new file")
    audits = audits_in(report)
    write_new(body, "\n".join(rendered(audit) for _, audit in audits).encode())
    targets = " ".join(dict.fromkeys(target for target, _ in audits))
    result = Result(one_line(targets), str(body), "audit as pull request text")
    return Report(verb="export", results=(result,))


def _carried(arguments: Namespace) -> Carried:
    overlay: Mapping[str, Carried] = load_overlay(ROOT)
    if arguments.target is not None:
        return target_named(overlay, arguments.target)
    if arguments.clone is not None:
        found = find_targets([arguments.clone], overlay)
        if len(found) == 1:
            return found[0].carried
    if len(overlay) > 1:
        raise _usage(
            "the overlay has several targets",
            f"give --target, one of {', '.join(overlay)}",
        )
    return next(iter(overlay.values()))


def _usage(what: str, step: str, path: Path | None = None) -> InputError:
    where = None if path is None else str(path)
    return InputError(what, (Finding(what, path=where, next_step=step),))


def show(report: Report) -> str:
    """The report as text."""
    return "\n".join(
        line
        for result in report.results
        for line in (
            f"{result.target}: {result.outcome}  ({result.tree})",
            *(f"  wrote  {name}" for name in result.changed),
        )
    )


if __name__ == "__main__":
    run(
        Verb(
            "Export the series for quilt, for git am or as a branch of a clone, and "
            "write the text of a pull request. Never overwrites anything.",
            (
                "scripts/export.py --target sglang --quilt ~/src/sglang/patches",
                "scripts/export.py --target aiter --mbox aiter.mbox --pr-body pr.md",
                "scripts/export.py --branch pretransposed --clone ~/src/sglang",
                "scripts/export.py --audit audit.json --pr-body guard.md",
            ),
            options,
            export,
            show,
            reports_effects=True,
        )
    )
