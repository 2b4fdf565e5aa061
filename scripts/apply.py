#!/usr/bin/env python3
"""Apply the overlay and its series to trees, or remove them: all of it or nothing."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Mapping
from contextlib import ExitStack, nullcontext
from dataclasses import replace
from pathlib import Path

from overlaykit.applying.branches import Switch
from overlaykit.applying.lineage import Lineage, lineage
from overlaykit.applying.targets import FoundTarget, find_targets
from overlaykit.applying.transaction import (
    Transaction,
    hold,
    interrupted,
    refuse_interrupted,
)
from overlaykit.cli import ROOT, Report, Result, Verb, hunk_table, run, skipped_lines
from overlaykit.core.errors import EnvironmentFailure, Exit, Finding, InputError
from overlaykit.core.git import top_of_clone
from overlaykit.core.wording import one_line
from overlaykit.planning.plan import (
    UPSTREAMED,
    Plan,
    Standing,
    plan_apply,
    plan_unapply,
)
from overlaykit.repository.state import Repository
from overlaykit.series.carried import Carried, load_overlay
from overlaykit.trees.bytecode import hidden_by_bytecode
from overlaykit.trees.locking import signals_blocked


def options(parser: ArgumentParser) -> None:
    parser.add_argument(
        "paths",
        metavar="PATH",
        nargs="+",
        type=Path,
        help="SGLang or AITER: a clone, an unpacked source tree, a site-packages or "
        "an installed package's directory; recognised by content",
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        "--unapply", action="store_true", help="remove the series and its new files"
    )
    what.add_argument(
        "--status",
        action="store_true",
        help="only report the state of the trees, and for a clone the nearest base and "
        "the commits since: exit 0 if applied or upstreamed, 1 if pristine, 3 if "
        "neither; repairs a tree that an interrupted run left behind",
    )
    what.add_argument(
        "--commit",
        action="store_true",
        help="in a clone: also commit, one commit for each patch, on a separate branch "
        "(overlay/NAME), and switch to it; refused if git has an unfinished operation "
        "or a staged change would be lost",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="plan and report, write nothing"
    )


def apply(arguments: Namespace) -> Report:
    """Apply the overlay and its series to the trees, or remove them."""
    overlay = load_overlay(ROOT)
    every = find_targets(arguments.paths, overlay)
    upstreamed = {one.tree.root: has for one in every if (has := _upstream_has(one))}
    if arguments.status:
        return _status(every, upstreamed, overlay, arguments.dry_run)
    found = [one for one in every if one.tree.root not in upstreamed]
    if arguments.commit:
        _need_clones(found)
    with ExitStack() as stack:
        held = _hold(stack, found, arguments)
        repositories = _check_clones(found) if arguments.commit else []
        plans = [_plan(one, arguments.unapply) for one in found]
        refused = any(plan.findings for plan in plans)
        if held and not refused:
            made = _prepare_commits(found, repositories)
            _carry_out(held, plans, [switch for _, switch in made])
            notes = [_repaired(transaction) for transaction in held]
            for number, (one, (tip, _)) in enumerate(zip(found, made, strict=True)):
                if tip is not None:
                    notes[number] += (f"committed on {_branch(one)}, {tip}",)
        else:
            notes = [() for _ in plans]
    results = {
        one.tree.root: _result(plan, note, arguments, refused)
        for one, plan, note in zip(found, plans, notes, strict=True)
    }
    return Report(
        verb="apply",
        exit_code=Exit.CANNOT_APPLY if refused else Exit.DONE,
        message="nothing was changed" if refused else "",
        dry_run=arguments.dry_run,
        results=tuple(
            results.get(root) or _as_upstream_has_it(one, upstreamed[root])
            for one in every
            for root in (one.tree.root,)
        ),
        findings=tuple(finding for plan in plans for finding in plan.findings),
    )


def _upstream_has(one: FoundTarget) -> str:
    """Why a tree that is no base needs no patch; empty if it is one, or needs one."""
    if one.carried.target.package != "aiter":
        return ""
    from upstream.merged import upstream_has_it

    return upstream_has_it(ROOT, one)


def _as_upstream_has_it(one: FoundTarget, has: str) -> Result:
    return Result(one.carried.name, one.tree.name, UPSTREAMED, notes=(has,))


def _hold(
    stack: ExitStack, found: list[FoundTarget], arguments: Namespace
) -> list[Transaction]:
    """Hold the trees for writing; a dry run neither holds nor repairs them."""
    if arguments.dry_run:
        for one in found:
            refuse_interrupted(one.tree)
        return []
    # A fixed order: two runs with the same paths in another order must not deadlock.
    order = sorted(found, key=lambda one: one.tree.root)
    done = "the series is removed" if arguments.unapply else "the series is applied"
    if arguments.commit:
        done += " and committed"
    held = {one.tree.root: stack.enter_context(hold(one.tree, done)) for one in order}
    return [held[one.tree.root] for one in found]


def _plan(one: FoundTarget, unapply: bool) -> Plan:
    plan = (plan_unapply if unapply else plan_apply)(one.carried, one.tree)
    if plan.standing is Standing.PARTIAL and not unapply:
        return _obstructed(one)
    if plan.standing is Standing.DRIFTED:
        plan = _with_hunk_outcomes(one)
        about = (*one.mismatch, *_contract_findings(one))
        return replace(plan, findings=plan.findings + about)
    if plan.changes and (hidden := hidden_by_bytecode(one.tree, one.carried.paths)):
        return replace(plan, findings=plan.findings + hidden)
    return plan


def _contract_findings(one: FoundTarget) -> tuple[Finding, ...]:
    """For an AITER that cannot be patched: whether it lacks what the series adds."""
    if one.carried.target.package != "aiter":
        return ()
    from xscale.aiter_tree import lacks_parameter

    finding = lacks_parameter(one.tree)
    return (finding,) if finding is not None else ()


def _with_hunk_outcomes(one: FoundTarget) -> Plan:
    """The plan for a drifted tree, with the outcome of each hunk if the pinned contents
    are available."""
    from overlaykit.planning.landing import plan_drifted
    from overlaykit.sources.bases import pinned_base

    plan = _obstructed(one)
    with pinned_base(ROOT, one.carried, one.tree.root) as base:
        if base is None:
            return plan
        return replace(plan, hunks=plan_drifted(one.carried, one.tree, base).hunks)


def _obstructed(one: FoundTarget) -> Plan:
    """The plan for a drifted or half applied tree; a clone's HEAD shows whether it has
    local edits or is another release, and its index what git did not check out."""
    from overlaykit.repository.places import RefusedClone
    from overlaykit.repository.sparse import skip_worktree_steps
    from overlaykit.trees.tree import head_tree

    refused: tuple[Finding, ...] = ()
    try:
        head = head_tree(one.tree.root)
    except RefusedClone as error:
        head, refused = None, error.findings
    with head or nullcontext() as committed:
        missing = (
            skip_worktree_steps(one.tree.root, one.carried.paths) if committed else {}
        )
        plan = plan_apply(one.carried, one.tree, committed, missing)
    return replace(plan, findings=plan.findings + refused)


def _carry_out(
    held: list[Transaction], plans: list[Plan], switches: list[Switch | None]
) -> None:
    """Stage all trees, then change all, then finish all. An error before the first is
    finished rolls back all of them."""
    work = []
    for transaction, plan, switch in zip(held, plans, switches, strict=True):
        if plan.changes or switch is not None:
            transaction.stage(plan.changes, switch)
            work.append(transaction)
    for transaction in work:
        transaction.swap()
    with signals_blocked():
        for transaction in work:
            transaction.finish()


def _repaired(transaction: Transaction) -> tuple[str, ...]:
    if not transaction.repaired:
        return ()
    return ("an interrupted run had left this tree unfinished; it was rolled back",)


def _branch(one: FoundTarget) -> str:
    return f"overlay/{one.carried.overlay}"


def _need_clones(found: list[FoundTarget]) -> None:
    for one in found:
        if top_of_clone(one.tree.root) is None:
            what = f"{one.tree.root} is not a clone: --commit needs one"
            step = "leave --commit out, or name the top of a clone"
            raise InputError(what, (Finding(what, next_step=step),))


def _check_clones(found: list[FoundTarget]) -> list[Repository]:
    """Check that a commit would lose nothing in any of the clones."""
    from overlaykit.applying.commits import check_clone

    return [check_clone(one.tree.root, _branch(one), one.carried) for one in found]


def _prepare_commits(
    found: list[FoundTarget], repositories: list[Repository]
) -> list[tuple[str | None, Switch | None]]:
    """Make the commits, as objects without a reference, and check that the branch can
    be created."""
    if not repositories:
        return [(None, None) for _ in found]
    from overlaykit.applying.commits import prepare_commits

    return [
        prepare_commits(repository, _branch(one), one.carried)
        for one, repository in zip(found, repositories, strict=True)
    ]


class StatusResult(Result, frozen=True, omit_defaults=True):
    """The state of one tree; of a clone, also where it is in upstream's history."""

    lineage: Lineage | None = None


def _lineage(
    one: FoundTarget, overlay: Mapping[str, Carried]
) -> tuple[Lineage | None, tuple[str, ...]]:
    package = one.carried.target.package
    bases = [base for base in overlay.values() if base.target.package == package]
    try:
        found = lineage(one.tree.root, bases)
    except EnvironmentFailure as error:
        return None, (one_line(f"its history cannot be read: {error.message}"),)
    lines = found.lines(one.tree.root) if found is not None else ()
    return found, tuple(map(one_line, lines))


def _status(
    found: list[FoundTarget],
    upstreamed: Mapping[Path, str],
    overlay: Mapping[str, Carried],
    dry_run: bool,
) -> Report:
    results: list[Result] = []
    findings: list[Finding] = []
    for one in found:
        if has := upstreamed.get(one.tree.root):
            results.append(_as_upstream_has_it(one, has))
            continue
        notes: tuple[str, ...] = ()
        if interrupted(one.tree):
            if dry_run:
                refuse_interrupted(one.tree)
            with hold(one.tree) as transaction:
                notes = _repaired(transaction)
        plan = plan_apply(one.carried, one.tree)
        if plan.standing in (Standing.DRIFTED, Standing.PARTIAL):
            plan = _obstructed(one)
        # If another run has just started, the tree would look half applied.
        refuse_interrupted(one.tree)
        findings += [*plan.findings, *one.mismatch]
        history, said = _lineage(one, overlay)
        results.append(
            StatusResult(
                one.carried.name,
                one.tree.name,
                plan.standing.value,
                skipped=plan.skipped,
                notes=notes + said,
                lineage=history,
            )
        )
    outcomes = {result.outcome for result in results}
    code = Exit.DONE
    if outcomes := outcomes - {Standing.APPLIED.value, UPSTREAMED}:
        code = Exit.FAILS
    if outcomes - {Standing.PRISTINE.value}:
        code = Exit.CANNOT_APPLY
    return Report(
        verb="apply", exit_code=code, results=tuple(results), findings=tuple(findings)
    )


def _result(
    plan: Plan, notes: tuple[str, ...], arguments: Namespace, refused: bool
) -> Result:
    would = "would be " if arguments.dry_run or refused else ""
    done = "taken off" if arguments.unapply else "applied"
    nothing = "nothing to take off" if arguments.unapply else "already applied"
    outcome = f"{would}{done}" if plan.changes else nothing
    return Result(
        plan.target,
        plan.tree,
        f"refused, {plan.standing.value}" if plan.findings else outcome,
        plan.hunks if plan.findings or not arguments.unapply else (),
        tuple(change.path for change in plan.changes),
        plan.skipped,
        notes,
    )


def show(report: Report) -> str:
    """The report as text."""
    blocks = []
    for result in report.results:
        lines = [f"{result.target}: {result.outcome}  ({result.tree})"]
        if result.hunks and result.outcome.startswith("refused"):
            lines.append("the outcome of each hunk in this tree:")
        if result.hunks:
            lines.append(hunk_table(result.hunks))
        changed = "to change" if "would" in result.outcome else "changed"
        lines += [f"  {changed}  {path}" for path in result.changed]
        lines += skipped_lines(result)
        lines += [f"  {note}" for note in result.notes]
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)


if __name__ == "__main__":
    run(
        Verb(
            "Apply the overlay and its series to trees, or remove them: "
            "all of it or nothing.",
            (
                "scripts/apply.py ~/src/sglang ~/src/aiter",
                "scripts/apply.py --dry-run --json /opt/venv/lib/python3.10/sglang",
                "scripts/apply.py --unapply ~/src/sglang",
                "scripts/apply.py --commit ~/src/sglang",
            ),
            options,
            apply,
            show,
            reports_effects=True,
        )
    )
