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

from overlaykit.series.patches import Change, split_lines
from overlaykit.series.scopes import MODULE, ScopeMap


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
    pinned: Side,
    wanted: Sequence[Change],
    whole: Side,
    found: Side,
    landed: Sequence[Change],
) -> str | None:
    """What speaks for another place than where the changes landed; None if nothing.

    ``whole`` is the pinned scope with all of the series: what that has may stand there.
    """
    if len(wanted) != len(landed):
        wanted, landed = [_whole(wanted)], [_whole(landed)]
    for want, land in zip(wanted, landed, strict=True):
        start = pinned.before(want.old_line)
        stop = pinned.before(want.old_line + len(want.removed))
        place = _Place(
            pinned.texts,
            range(start, stop),
            whole.texts,
            found,
            range(
                found.before(land.old_line),
                found.before(land.old_line + len(land.removed)),
            ),
        )
        if why := place.crossed() or place.rivalled() or place.copied():
            return why
    return None


def _whole(changes: Sequence[Change]) -> Change:
    """All of the changes as one that removes what lies between them, too."""
    first, last = changes[0], changes[-1]
    size = last.old_line + len(last.removed) - first.old_line
    return Change(first.old_line, first.new_line, (b"",) * size, ())


_NEAR = 3
"""Lines that say something, to either side of a change, by which a copy is known: two
of them as far apart as they were, or one more than so many in a row, twice as near."""


@dataclass(frozen=True)
class _Place:
    """Which lines of the pinned scope a change removes, and which of those found the
    landing does; empty ranges where it only adds."""

    pinned: tuple[bytes, ...]
    want: range
    whole: tuple[bytes, ...]
    found: Side
    land: range

    def crossed(self) -> str | None:
        """A line, of which there is but one, on the other side of the change."""
        texts = self.found.texts
        now, then = Counter(texts), Counter(self.pinned)
        for lines, wrong, where in (
            (self.pinned[: self.want.start], texts[self.land.stop :], "above"),
            (self.pinned[self.want.stop :], texts[: self.land.start], "below"),
        ):
            for line in lines:
                if now[line] == then[line] == 1 and line in wrong:
                    return f"{_told(line)} stood {where} it in the pinned file"
        return None

    def rivalled(self) -> str | None:
        """Another place that the lines around the change fit as well as this one."""
        texts = self.found.texts
        above, below = self.pinned[: self.want.start], self.pinned[self.want.stop :]
        heads = shared(above, texts)
        tails = shared(below[::-1], texts[::-1])[::-1]
        mine = heads[self.land.start] + tails[self.land.stop]
        fits = [head + tail for head, tail in zip(heads, tails, strict=True)]
        next_to = {*above[-1:], *below[:1], *texts[self.land.start : self.land.stop]}
        for at, fit in enumerate(fits):
            if fit < mine or self.land.start <= at <= self.land.stop:
                continue
            # What lies between is new, and the place is the same one; or it is not.
            between = range(min(at, self.land.stop), max(at, self.land.start))
            if fit > mine or any(
                fits[n] < mine or texts[n] in next_to for n in between
            ):
                return f"the lines around it fit {self._line(at)} as well"
        return None

    def copied(self) -> str | None:
        """Something of a copy that the pinned scope does not have: enough to be in
        doubt."""
        texts = self.found.texts
        now = _apart(self._likes(texts))
        then = max(len(_apart(self._likes(t))) for t in (self.pinned, self.whole))
        if len(now) > then:
            at = ", ".join(self._line(place.start) for place in now)
            return f"there are {len(now)} places like it, at {at}; {then} were"
        before = Counter(_rows(self.pinned)) | Counter(_rows(self.whole))
        after = Counter(_rows(texts))
        first = max(0, self.want.start - 2 * _NEAR)
        for row in _rows(self.pinned[first : self.want.stop + 2 * _NEAR]):
            if after[row] > before[row]:
                what = f"the lines from {_told(row[0])} to {_told(row[-1])}"
                return f"{what}, next to it, stand {after[row]} times in it"
        return None

    def _likes(self, texts: Sequence[bytes]) -> list[range]:
        """The places that have two of the lines around the change, or of those that it
        removes, but not both from above or both from below: as far apart as they were,
        one line more, or nearer where what is between them may be gone."""
        first = max(0, self.want.start - _NEAR)
        window = range(first, min(self.want.stop + _NEAR, len(self.pinned)))
        offsets: dict[bytes, list[int]] = {}
        for at in window:
            offsets.setdefault(self.pinned[at], []).append(at)
        spans = []
        known = [(at, one) for at, t in enumerate(texts) for one in offsets.get(t, ())]
        for at, one in known:
            for to, two in known:
                far, was = to - at, two - one
                split = one < self.want.stop and two >= self.want.start and was > 0
                around = one < self.want.start and two >= self.want.stop
                if split and (1 if around else was) <= far <= was + 1:
                    spans.append(range(at, to + 1))
        return spans

    def _line(self, at: int) -> str:
        return f"line {self.found.numbers[min(at, len(self.found.numbers) - 1)]}"


def _rows(texts: Sequence[bytes]) -> list[tuple[bytes, ...]]:
    """All runs of a few lines."""
    size = _NEAR + 1
    return [tuple(texts[at : at + size]) for at in range(len(texts) - size + 1)]


def _apart(spans: list[range]) -> list[range]:
    """Runs of lines, those that overlap brought together."""
    found: list[range] = []
    for span in sorted(spans, key=lambda span: span.start):
        if found and span.start < found[-1].stop:
            found[-1] = range(found[-1].start, max(found[-1].stop, span.stop))
        else:
            found.append(span)
    return found


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
