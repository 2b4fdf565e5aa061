"""Whether the lines around a change single out its place in a scope.

A scope may hold a block and a copy of it, and a merge puts the change where its context
fits best, be that the copy. The rest of the scope, in order, says which of them is
meant: the lines that stood above the change must still be above it, those below still
below, and no other place may agree with them as well. Where a copy took the lines next
to the change along, there is such another place, also where the original was rewritten
and only its surroundings are left.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from overlaykit.patches import Change, split_lines
from overlaykit.scopes import MODULE, ScopeMap


@dataclass(frozen=True)
class Side:
    """The lines of a scope that say something, and their numbers in the file."""

    numbers: tuple[int, ...]
    texts: tuple[bytes, ...]

    def before(self, line: int) -> int:
        """How many of them stand before a line of the file."""
        return sum(number < line for number in self.numbers)


def side_of(data: bytes, scopes: ScopeMap, scope: str, shift: int = 0) -> Side:
    """A scope's own lines and the first ones of the definitions in it; lines without a
    word (blank ones, brackets) are everywhere, and so place nothing. ``shift`` is by
    how much the lines are indented elsewhere."""
    parent = "" if scope == MODULE else f"{scope}."
    opening = {
        name: start
        for start, name in reversed(list(zip(scopes.starts, scopes.names, strict=True)))
        if name.rpartition(".")[0] == parent[:-1] and name not in (MODULE, scope)
    }
    inner = set(opening.values())
    numbers, texts = [], []
    for number, line in enumerate(split_lines(data), 1):
        text = line.strip()
        if _WORD.isdisjoint(text):
            continue
        if number in inner or scopes.at(number) == scope:
            indent = len(line) - len(line.lstrip()) + shift
            numbers.append(number)
            texts.append(b" " * indent + text)
    return Side(tuple(numbers), tuple(texts))


_WORD = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_")


def not_singled_out(
    pinned: Side, wanted: Sequence[Change], found: Side, landed: Sequence[Change]
) -> str | None:
    """What speaks for another place than where the changes landed; None if nothing."""
    if len(wanted) != len(landed):
        wanted, landed = [_whole(wanted)], [_whole(landed)]
    for want, land in zip(wanted, landed, strict=True):
        place = _Place(
            pinned.texts[: pinned.before(want.old_line)],
            pinned.texts[pinned.before(want.old_line + len(want.removed)) :],
            found,
            found.before(land.old_line),
            found.before(land.old_line + len(land.removed)),
        )
        if why := place.crossed() or place.rivalled():
            return why
    return None


def _whole(changes: Sequence[Change]) -> Change:
    """All of the changes as one that removes what lies between them, too."""
    first, last = changes[0], changes[-1]
    size = last.old_line + len(last.removed) - first.old_line
    return Change(first.old_line, first.new_line, (b"",) * size, ())


@dataclass(frozen=True)
class _Place:
    """What stood above and below a change, and where in the scope it landed: between
    the lines ``first`` and ``last`` of those found, which it removes."""

    above: tuple[bytes, ...]
    below: tuple[bytes, ...]
    found: Side
    first: int
    last: int

    def crossed(self) -> str | None:
        """A line, of which there is but one, on the other side of the change."""
        texts = self.found.texts
        now, then = Counter(texts), Counter(self.above + self.below)
        for lines, wrong, where in (
            (self.above, texts[self.last :], "above"),
            (self.below, texts[: self.first], "below"),
        ):
            for line in lines:
                if now[line] == then[line] == 1 and line in wrong:
                    return f"{_told(line)} stood {where} it in the pinned file"
        return None

    def rivalled(self) -> str | None:
        """Another place that the lines around the change fit as well as this one."""
        texts = self.found.texts
        heads = shared(self.above, texts)
        tails = shared(self.below[::-1], texts[::-1])[::-1]
        mine = heads[self.first] + tails[self.last]
        fits = [head + tail for head, tail in zip(heads, tails, strict=True)]
        rivals = [
            at
            for at, fit in enumerate(fits)
            if fit >= mine and not self.first <= at <= self.last
        ]
        for at in rivals:
            between = range(min(at, self.last), max(at, self.first))
            if fits[at] > mine or self._tells(between, fits, mine):
                line = self.found.numbers[min(at, len(texts) - 1)]
                return f"the lines around it fit line {line} as well"
        return None

    def _tells(self, between: range, fits: list[int], mine: int) -> bool:
        """Whether a place that fits as well is another one: what lies between is not
        only new, but also what lay next to the change."""
        next_to = {*self.above[-1:], *self.below[:1]}
        next_to |= set(self.found.texts[self.first : self.last])
        return any(
            fits[at] < mine or self.found.texts[at] in next_to for at in between
        )


def shared(lines: Sequence[bytes], texts: Sequence[bytes]) -> list[int]:
    """For each length of the head of ``texts``, how many lines it has in common, in
    order, with ``lines``: the longest common subsequence, a bit for each text, so that
    a whole row is one sum (Crochemore and others, 2001)."""
    places: dict[bytes, int] = {}
    for at, text in enumerate(texts):
        places[text] = places.get(text, 0) | 1 << at
    full = (1 << len(texts)) - 1
    row = full
    for line in lines:
        match = row & places.get(line, 0)
        row = ((row + match) | (row - match)) & full
    return [0, *accumulate(1 - (row >> at & 1) for at in range(len(texts)))]


def _told(line: bytes) -> str:
    return repr(line.decode(errors="replace").strip())
