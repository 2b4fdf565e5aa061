"""What to do about one upstream version, and why."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

from overlaykit.planning.plan import Standing
from upstream.facts import KnownBase
from upstream.outcomes import Cell, Column, Outcome
from xscale.liveness import NEVER_RUNS


class Action(Enum):
    """What a maintainer does with patches."""

    APPLY = "apply as is"
    CARRIED = "carried already"
    APPLIED = "applied already"
    REBASE = "rebase"
    RETIRE = "retire"
    REVIVE = "revive"
    REDERIVE = "re-derive"
    DECIDE = "decide by hand"
    NOTHING = "not for this version"


_IN_ORDER = (
    Action.RETIRE,
    Action.REVIVE,
    Action.REBASE,
    Action.REDERIVE,
    Action.DECIDE,
)


@dataclass(frozen=True)
class Advice:
    """One action, the patches it is for, and the reasons."""

    action: Action
    patches: tuple[str, ...]
    reasons: tuple[str, ...]

    @property
    def text(self) -> str:
        """The action and its patches, by number."""
        numbers = " ".join(patch.partition("-")[0] for patch in self.patches)
        return f"{self.action.value} {numbers}".strip()


def advise(column: Column) -> tuple[Advice, ...]:
    """What to do, most certain action first; each patch belongs to one action."""
    names = tuple(cell.row for cell in column.patches)
    if column.standing is Standing.PRISTINE:
        same = "every touched file is identical to the pinned one"
        return (Advice(Action.APPLY, (), (same,)),)
    if column.known is not None:
        return (_advise_known(column.known),)
    if any(cell.outcome is Outcome.PREDATES for cell in column.sites):
        return (Advice(Action.NOTHING, (), _why_older(column)),)
    if all(cell.outcome.lands for cell in column.patches):
        if column.holds:
            why = "every patch merges"
            if column.sites:
                why += ", and the result passes the pin's census"
            return (Advice(Action.REBASE, names, (why,)),)
        why = "every patch merges, but the result fails the pin's census"
        return (Advice(Action.REDERIVE, names, (why,)),)
    found = []
    for action in _IN_ORDER:
        cells = [cell for cell in column.patches if _action_of(cell) is action]
        if cells:
            patches = tuple(cell.row for cell in cells)
            found.append(Advice(action, patches, _reasons(column, cells)))
    return tuple(found)


def headline(advice: Iterable[Advice]) -> str:
    """All actions in one line."""
    return "; ".join(one.text for one in advice)


def _advise_known(known: KnownBase) -> Advice:
    """For a tree that needs no merge: it is a carried base, pristine or applied."""
    if known.standing is Standing.APPLIED:
        why = f"every file is identical to the result of the series of {known.target}"
        return Advice(Action.APPLIED, (), (why,))
    why = f"every touched file is identical to that of the base {known.target}"
    step = "scripts/apply.py applies the series of that base"
    return Advice(Action.CARRIED, (), (f"{why}: {step}",))


def _why_older(column: Column) -> tuple[str, ...]:
    rows: dict[str, list[str]] = {}
    for cell in column.sites:
        rows.setdefault(cell.reasons[0], []).append(cell.row)
    return tuple(f"{' '.join(sites)}: {reason}" for reason, sites in rows.items())


def _action_of(cell: Cell) -> Action:
    """What to do with one patch. Without it, an adopted patch must be seen to run."""
    if cell.outcome.adopted:
        if cell.dead:
            return Action.REVIVE
        return Action.DECIDE if cell.not_run else Action.RETIRE
    if cell.outcome.lands:
        return Action.REBASE
    return Action.DECIDE if cell.outcome is Outcome.UNSURE else Action.REDERIVE


def _reasons(column: Column, cells: Iterable[Cell]) -> tuple[str, ...]:
    """The labels with their sites, why calls are dead, and which hunks are left."""
    cells = list(cells)
    mine = {row for cell in cells for row in cell.sites}
    sites = [cell for cell in column.sites if cell.row in mine]
    numbers: dict[str, list[str]] = {}
    for cell in (*sites, *(cell for cell in cells if not cell.sites)):
        numbers.setdefault(cell.label, []).append(cell.number)
    reasons = [f"{' '.join(rows)}: {label}" for label, rows in numbers.items()]
    dead = (why for site in sites if site.dead for why in site.reasons)
    reasons += dict.fromkeys(
        NEVER_RUNS + why.partition(NEVER_RUNS)[2] for why in dead if NEVER_RUNS in why
    )
    reasons += dict.fromkeys(
        f"whether {cell.number} is live is not run: {cell.not_run}"
        for cell in cells
        if cell.outcome.adopted and cell.not_run and not cell.dead
    )
    return (
        *reasons,
        *(
            f"{cell.number} leaves a hunk that upstream does not have: {hunk}"
            for cell in cells
            for hunk in cell.left_over
        ),
    )
