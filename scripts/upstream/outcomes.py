"""The matrix: columns of cells, and the outcomes that a cell can have."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum

from overlaykit.planning.plan import Standing
from upstream.facts import KnownBase, Quote


class Outcome(Enum):
    """The outcome of a cell, from best to worst."""

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
        """Whether the series' own change merges and still has its meaning."""
        return self in _LANDING

    @property
    def adopted(self) -> bool:
        """Whether upstream has the change, in the same or other lines."""
        return self in (Outcome.UPSTREAMED, Outcome.SUPERSEDED)

    @property
    def rank(self) -> int:
        return list(Outcome).index(self)


_LANDING = {Outcome.CLEAN, Outcome.OFFSET, Outcome.MERGED, Outcome.RENAMED}


@dataclass(frozen=True)
class Cell:
    """``row`` names a patch or a site. ``dead``: the call exists, but native block-FP8
    layers never run it. ``not_run`` says why that could not be run here, if it could
    not. ``moved_to`` is the site's file, if the series changes
    another one. ``left_over`` are hunks without a site that upstream does not
    have. ``sites`` are the sites of a patch.
    """

    row: str
    outcome: Outcome
    reasons: tuple[str, ...] = ()
    path: str | None = None
    line: int | None = None
    dead: bool = False
    not_run: str = ""
    moved_to: str | None = None
    left_over: tuple[str, ...] = ()
    sites: tuple[str, ...] = ()
    quote: Quote | None = None

    @property
    def number(self) -> str:
        """The short name of the row: a patch's number or a site's name."""
        return self.row.partition("-")[0]

    @property
    def label(self) -> str:
        """The cell as text."""
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
    """An upstream version. ``identity`` is the digest of its wheel or its git tree;
    ``about`` is a remark for people. A version ``beside`` the others is not an ancestor
    of the versions after it. One ``between`` others is a commit of a range, which the
    user did not name."""

    name: str
    identity: str
    about: str = ""
    before_pin: bool = False
    beside: bool = False
    between: bool = False


@dataclass(frozen=True)
class Column:
    """``holds``: whether every patch merges and the result passes the census that the
    patched pin passes. ``unforeseen`` are the calls outside the catalogue, with what
    reads their scales; ``unpaired`` are those without a known reader. ``known`` is the
    same as in the version's facts."""

    version: Version
    standing: Standing
    patches: tuple[Cell, ...]
    sites: tuple[Cell, ...]
    holds: bool
    dangers: tuple[str, ...]
    unforeseen: tuple[str, ...]
    unpaired: tuple[str, ...]
    known: KnownBase | None = None

    @property
    def cells(self) -> tuple[Cell, ...]:
        return (*self.patches, *self.sites)

    def cell(self, row: str) -> Cell:
        """The cell of a row, by its full or short name."""
        return next(cell for cell in self.cells if row in (cell.row, cell.number))

    def capped(self, most: int) -> Column:
        """The column with at most ``most`` lines of upstream's code in each cell."""

        def cap(cells: tuple[Cell, ...]) -> tuple[Cell, ...]:
            return tuple(
                replace(cell, quote=cell.quote.capped(most) if cell.quote else None)
                for cell in cells
            )

        return replace(self, patches=cap(self.patches), sites=cap(self.sites))
