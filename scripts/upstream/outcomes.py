"""What a matrix is made of: columns of cells, and the words that a cell may read."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from overlaykit.planning.plan import Standing
from upstream.facts import Known, Quote


class Outcome(Enum):
    """What a cell reads, from best to worst."""

    CLEAN = "clean"
    OFFSET = "offset"
    MERGED = "merged"
    RENAMED = "renamed"
    UPSTREAMED = "upstreamed"
    SUPERSEDED = "superseded"
    LEFT_BEHIND = "left behind"
    REVERTED = "reverted upstream"
    MOVED = "moved"
    MISPLACED = "misplaced refused"
    AMBIGUOUS = "ambiguous"
    CONFLICT = "conflict"
    GONE = "gone"
    UNSURE = "unsure"
    PREDATES = "predates"

    @property
    def lands(self) -> bool:
        """Whether the series' own change would be in, and mean something."""
        return self in _LANDING

    @property
    def adopted(self) -> bool:
        """Whether upstream has it, in these or other words."""
        return self in (Outcome.UPSTREAMED, Outcome.SUPERSEDED)

    @property
    def rank(self) -> int:
        return list(Outcome).index(self)


_LANDING = {Outcome.CLEAN, Outcome.OFFSET, Outcome.MERGED, Outcome.RENAMED}


@dataclass(frozen=True)
class Cell:
    """``row`` is a patch's or a site's name. ``dead``: a call is there and native
    block-FP8 layers never let it run. ``moved_to`` is where the site stands, if that
    is not where the series has it. ``left_over``: hunks that no site stands for and
    upstream has not. ``sites`` are a patch's own.
    """

    row: str
    outcome: Outcome
    reasons: tuple[str, ...] = ()
    path: str | None = None
    line: int | None = None
    dead: bool = False
    moved_to: str | None = None
    left_over: tuple[str, ...] = ()
    sites: tuple[str, ...] = ()
    quote: Quote | None = None

    @property
    def number(self) -> str:
        """The row in short: a patch's number, a site's name."""
        return self.row.partition("-")[0]

    @property
    def label(self) -> str:
        """The cell in words."""
        word = self.outcome.value
        if self.outcome.adopted and self.dead:
            word = "adopted, dead"
        elif self.dead:
            word += ", dead"
        if self.moved_to is None:
            return word
        moved = f"moved to {self.moved_to.rpartition('/')[2]}"
        return moved if self.outcome is Outcome.MOVED else f"{word}, {moved}"


@dataclass(frozen=True)
class Version:
    """An upstream version: how it is called, which commit or package it is, what else
    there is to say of it, and whether it is older than the pin. One that stands
    ``beside`` the others is no ancestor of those after it."""

    name: str
    identity: str
    about: str = ""
    before_pin: bool = False
    beside: bool = False


@dataclass(frozen=True)
class Column:
    """``holds``: whether all of the series merges and the result passes the census
    that the patched pin passes. ``unforeseen`` are the calls outside the catalogue by
    what reads their scales, ``unpaired`` those of which that is not seen. ``known`` is
    as in the version's facts."""

    version: Version
    standing: Standing
    patches: tuple[Cell, ...]
    sites: tuple[Cell, ...]
    holds: bool
    dangers: tuple[str, ...]
    unforeseen: tuple[str, ...]
    unpaired: tuple[str, ...]
    known: Known | None = None

    @property
    def cells(self) -> tuple[Cell, ...]:
        return (*self.patches, *self.sites)

    def cell(self, row: str) -> Cell:
        """A row's cell, by its whole name or in short."""
        return next(cell for cell in self.cells if row in (cell.row, cell.number))
