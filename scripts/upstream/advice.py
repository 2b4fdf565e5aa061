"""What to do about one upstream version, and why."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

from overlaykit.planning.plan import Standing
from upstream.facts import Known
from upstream.outcomes import Cell, Column, Outcome

_NEVER = "never runs: "  # How the census begins to say why a call is dead.


class Action(Enum):
    """What a maintainer does with patches."""

    APPLY = "apply as is"
    CARRIED = "carried already"
    APPLIED = "applied already"
    REBASE = "rebase"
    RETIRE = "retire"
    REDERIVE = "re-derive"
    DECIDE = "decide by hand"
    NOTHING = "not for this version"


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
    """What to do, most certain first; every patch is in one piece of advice."""
    names = tuple(cell.row for cell in column.patches)
    if column.standing is Standing.PRISTINE:
        same = "every touched file is the pinned one, byte for byte"
        return (Advice(Action.APPLY, (), (same,)),)
    if column.known is not None:
        return (_known(column.known),)
    if any(cell.outcome is Outcome.PREDATES for cell in column.sites):
        return (Advice(Action.NOTHING, (), _older(column)),)
    if all(cell.outcome.lands for cell in column.patches):
        if column.holds:
            why = "all of it merges"
            if column.sites:
                why += ", and the result passes the pin's census"
            return (Advice(Action.REBASE, names, (why,)),)
        why = "all of it merges, and the result does not pass the pin's census"
        return (Advice(Action.REDERIVE, names, (why,)),)
    found = []
    for action, wanted in (
        (Action.RETIRE, _retired),
        (Action.REBASE, _rebased),
        (Action.REDERIVE, _derived),
        (Action.DECIDE, _unsure),
    ):
        cells = [cell for cell in column.patches if wanted(cell)]
        if cells:
            reasons = _reasons(column, cells)
            patches = tuple(cell.row for cell in cells)
            found.append(Advice(action, patches, reasons))
    return tuple(found)


def headline(advice: Iterable[Advice]) -> str:
    """All actions in one line."""
    return "; ".join(one.text for one in advice)


def _known(known: Known) -> Advice:
    """A tree that needs no merge: the overlay has a series for it, or it has that."""
    if known.standing is Standing.APPLIED:
        why = f"every file is as the series of {known.target} leaves it, byte for byte"
        return Advice(Action.APPLIED, (), (why,))
    why = f"every touched file is that of the base {known.target}, byte for byte"
    step = "scripts/apply.py puts that base's own series on"
    return Advice(Action.CARRIED, (), (f"{why}: {step}",))


def _older(column: Column) -> tuple[str, ...]:
    said: dict[str, list[str]] = {}
    for cell in column.sites:
        said.setdefault(cell.reasons[0], []).append(cell.row)
    return tuple(f"{' '.join(rows)}: {reason}" for reason, rows in said.items())


def _retired(cell: Cell) -> bool:
    return cell.outcome.adopted


def _rebased(cell: Cell) -> bool:
    return cell.outcome.lands


def _unsure(cell: Cell) -> bool:
    return cell.outcome is Outcome.UNSURE


def _derived(cell: Cell) -> bool:
    return not (_retired(cell) or _rebased(cell) or _unsure(cell))


def _reasons(column: Column, cells: Iterable[Cell]) -> tuple[str, ...]:
    """What is said, and of which sites; why they are dead; what is left over."""
    cells = list(cells)
    mine = {row for cell in cells for row in cell.sites}
    sites = [cell for cell in column.sites if cell.row in mine]
    said: dict[str, list[str]] = {}
    for cell in (*sites, *(cell for cell in cells if not cell.sites)):
        said.setdefault(cell.label, []).append(cell.number)
    reasons = [f"{' '.join(rows)}: {label}" for label, rows in said.items()]
    dead = (why for site in sites if site.dead for why in site.reasons)
    reasons += dict.fromkeys(
        _NEVER + why.partition(_NEVER)[2] for why in dead if _NEVER in why
    )
    return (
        *reasons,
        *(
            f"{cell.number} leaves over {hunk}"
            for cell in cells
            for hunk in cell.left_over
        ),
    )
