#!/usr/bin/env python3
"""Put the overlay and its series on trees, or take them off: all of it or none."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from contextlib import ExitStack, nullcontext
from pathlib import Path

from overlaykit.bytecode import hidden_by_bytecode
from overlaykit.carried import load_overlay
from overlaykit.cli import ROOT, Report, Result, Verb, hunk_table, run, skipped_lines
from overlaykit.errors import CannotApply, Exit, InputError
from overlaykit.git import top_of_clone
from overlaykit.plan import (
    Plan,
    Standing,
    locate,
    plan_apply,
    plan_unapply,
    refuse,
)
from overlaykit.targets import Found, find_targets
from overlaykit.transaction import Transaction, hold, interrupted, refuse_interrupted


def options(parser: ArgumentParser) -> None:
    parser.add_argument(
        "paths",
        metavar="PATH",
        nargs="+",
        type=Path,
        help="SGLang or AITER: a clone, an unpacked source tree, a site-packages or "
        "an installed package's directory; told by content",
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        "--unapply", action="store_true", help="take the series and its new files off"
    )
    what.add_argument(
        "--status",
        action="store_true",
        help="only say where the trees stand: exit 0 if applied, 1 if pristine, 3 if "
        "neither; repairs a tree that an interrupted run left behind",
    )
    what.add_argument(
        "--commit",
        action="store_true",
        help="on a clone: also commit, one commit a patch, on a branch of its own "
        "(overlay/NAME), and switch to it",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="plan and report, write nothing"
    )


def apply(arguments: Namespace) -> Report:
    """Put the overlay and its series on the trees, or take them off."""
    unapply, commit = arguments.unapply, arguments.commit
    dry_run = arguments.dry_run
    found = find_targets(arguments.paths, load_overlay(ROOT))
    if arguments.status:
        return _status(found, dry_run)
    if dry_run:
        for one in found:
            refuse_interrupted(one.tree)
        plans = [_plan(one, unapply) for one in found]
        return _report(found, plans, unapply, dry_run=True)
    with ExitStack() as stack:
        # The order of the paths must not decide who waits for whom.
        order = sorted(found, key=lambda one: one.tree.root)
        held = {o.tree.root: stack.enter_context(hold(o.tree)) for o in order}
        plans = [_plan(one, unapply) for one in found]
        tips = _prepare_commits(found) if commit else []
        _carry_out([(held[o.tree.root], p) for o, p in zip(found, plans, strict=True)])
        notes = {root: _repaired(held[root]) for root in held}
        for one, tip in zip(found, tips, strict=False):
            notes[one.tree.root] += (_commit(one, tip),)
    return _report(found, plans, unapply, notes=[notes[o.tree.root] for o in found])


def _plan(one: Found, unapply: bool) -> Plan:
    plan = (plan_unapply if unapply else plan_apply)(one.carried, one.tree)
    if plan.standing is Standing.DRIFTED:
        _explain(one)
    refuse(plan)
    if plan.changes and (hidden := hidden_by_bytecode(one.tree, one.carried.paths)):
        raise CannotApply(f"{plan.tree}: the change would not run", hidden)
    return plan


def _explain(one: Found) -> None:
    """Refuse a drifted tree, with what each hunk would come to where that is known."""
    from overlaykit.bases import pinned_base
    from overlaykit.landing import foresee
    from overlaykit.trees import checked_out

    with checked_out(one.tree.root) or nullcontext() as committed:
        plan = plan_apply(one.carried, one.tree, committed)
    with pinned_base(ROOT, one.carried, one.tree.root) as base:
        if base is None:
            hint = "run scripts/fetch.py to see what each hunk would come to"
        else:
            foreseen = foresee(one.carried, one.tree, base)
            table = hunk_table(foreseen.hunks)
            hint = f"this is what each hunk would come to:\n{table}"
    raise CannotApply(
        f"{plan.tree}: {plan.target} is {plan.standing.value}, nothing was changed; "
        f"{hint}",
        plan.findings,
    )


def _carry_out(work: list[tuple[Transaction, Plan]]) -> None:
    work = [(transaction, plan) for transaction, plan in work if plan.changes]
    for transaction, plan in work:
        transaction.stage(plan.changes)
    for transaction, _ in work:
        transaction.swap()
    for transaction, _ in work:
        transaction.finish()


def _repaired(transaction: Transaction) -> tuple[str, ...]:
    if not transaction.repaired:
        return ()
    return ("an interrupted run had left this tree unfinished; it was rolled back",)


def _branch(one: Found) -> str:
    return f"overlay/{one.carried.overlay}"


def _prepare_commits(found: list[Found]) -> list[str]:
    """Make the commits, as objects alone, and see that their branch may be made."""
    from overlaykit.commits import check_branch, commit_series, current_base

    tips = []
    for one in found:
        root = one.tree.root
        if top_of_clone(root) is None:
            raise InputError(f"{root} is no clone: --commit needs one")
        base = current_base(root, _branch(one), one.carried)
        tips.append(commit_series(root, base, one.carried))
        check_branch(root, _branch(one), tips[-1])
    return tips


def _commit(one: Found, tip: str) -> str:
    from overlaykit.commits import switch

    switch(one.tree.root, _branch(one), tip, one.carried.paths)
    return f"committed on {_branch(one)}, {tip}"


def _status(found: list[Found], dry_run: bool) -> Report:
    results, findings = [], []
    for one in found:
        notes: tuple[str, ...] = ()
        if interrupted(one.tree):
            if dry_run:
                refuse_interrupted(one.tree)
            with hold(one.tree) as transaction:
                notes = _repaired(transaction)
        plan = plan_apply(one.carried, one.tree)
        findings += list(plan.findings)
        standing = locate(one.carried, one.tree).standing(one.carried)
        results.append(
            Result(
                one.carried.name,
                one.tree.name,
                standing.value,
                skipped=plan.skipped,
                notes=notes,
            )
        )
    clear = {Standing.APPLIED.value, Standing.PRISTINE.value}
    code = Exit.DONE
    if any(r.outcome != Standing.APPLIED.value for r in results):
        code = Exit.FAILS
    if any(r.outcome not in clear for r in results):
        code = Exit.CANNOT_APPLY
    return Report(
        verb="apply", exit_code=code, results=tuple(results), findings=tuple(findings)
    )


def _report(
    found: list[Found],
    plans: list[Plan],
    unapply: bool,
    dry_run: bool = False,
    notes: list[tuple[str, ...]] | None = None,
) -> Report:
    results = []
    for number, plan in enumerate(plans):
        would = "would be " if dry_run else ""
        done = would + ("taken off" if unapply else "applied")
        same = "nothing to take off" if unapply else "already applied"
        results.append(
            Result(
                plan.target,
                plan.tree,
                done if plan.changes else same,
                () if unapply else plan.hunks,
                tuple(change.path for change in plan.changes),
                plan.skipped,
                notes[number] if notes else (),
            )
        )
    return Report(verb="apply", dry_run=dry_run, results=tuple(results))


def show(report: Report) -> str:
    """The report as a person reads it."""
    blocks = []
    for result in report.results:
        lines = [f"{result.target}: {result.outcome}  ({result.tree})"]
        if result.hunks:
            lines.append(hunk_table(result.hunks))
        lines += [f"  changed  {path}" for path in result.changed]
        lines += skipped_lines(result)
        lines += [f"  {note}" for note in result.notes]
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)


if __name__ == "__main__":
    run(
        Verb(
            "Put the overlay and its series on trees, or take them off: "
            "all of it or none.",
            (
                "scripts/apply.py ~/src/sglang ~/src/aiter",
                "scripts/apply.py --dry-run --json /opt/venv/lib/python3.10/sglang",
                "scripts/apply.py --unapply ~/src/sglang",
                "scripts/apply.py --commit ~/src/sglang",
            ),
            options,
            apply,
            show,
        )
    )
