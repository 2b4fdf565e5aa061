"""Checks that the lines around a change identify one place in a scope.

A scope may contain a block and a copy of it. A merge puts the change where its context
fits best, even if that is the copy. The order of the other lines in the scope shows
which block is meant: lines that were above the change must still be above it, lines
below it still below, and no other place may match them as well. If a copy includes the
lines next to the change, there is such a second place, even if the original was
rewritten and only its surroundings remain.
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
    """The significant lines of a scope, and their numbers in the file."""

    numbers: tuple[int, ...]
    texts: tuple[bytes, ...]

    def before(self, line: int) -> int:
        """The number of these lines before a line of the file."""
        return sum(number < line for number in self.numbers)


def side_of(data: bytes, scopes: ScopeMap, scope: str, shift: int = 0) -> Side:
    """A scope's significant lines: its own, and the first of each definition in it.

    Lines without a word, such as blank lines and brackets, occur everywhere and are
    left out. ``shift`` is the difference in indentation at the new place.
    """
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


def doubtful_place(
    pinned: Side,
    wanted: Sequence[Change],
    whole: Side,
    found: Side,
    landed: Sequence[Change],
) -> str | None:
    """The reason why the changes may belong in another place; None if there is none.

    ``whole`` is the pinned scope with the whole series, whose lines may be present.
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
        if why := place.moved_across() or place.has_rival() or place.copied():
            return why
    return None


def _whole(changes: Sequence[Change]) -> Change:
    """All changes as one, which also removes the lines between them."""
    first, last = changes[0], changes[-1]
    size = last.old_line + len(last.removed) - first.old_line
    return Change(first.old_line, first.new_line, (b"",) * size, ())


_NEAR = 3
"""How many significant lines on either side of a change identify a copy.

Two of them at their old distance do, or a run of one line more, within twice the range.
"""


@dataclass(frozen=True)
class _Place:
    """The lines that a change removes in the pinned scope (``want``) and in the scope
    found (``land``). A change that only adds has empty ranges."""

    pinned: tuple[bytes, ...]
    want: range
    whole: tuple[bytes, ...]
    found: Side
    land: range

    def moved_across(self) -> str | None:
        """A unique line that is now on the other side of the change."""
        texts = self.found.texts
        now, then = Counter(texts), Counter(self.pinned)
        for lines, wrong, where in (
            (self.pinned[: self.want.start], texts[self.land.stop :], "above"),
            (self.pinned[self.want.stop :], texts[: self.land.start], "below"),
        ):
            for line in lines:
                if now[line] == then[line] == 1 and line in wrong:
                    return f"{_quoted(line)} is {where} it in the pinned file"
        return None

    def has_rival(self) -> str | None:
        """Another place that fits the lines around the change as well."""
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
            # If all lines between the two are new, this is the same place.
            between = range(min(at, self.land.stop), max(at, self.land.start))
            if fit > mine or any(
                fits[n] < mine or texts[n] in next_to for n in between
            ):
                return f"the lines around it also fit {self._line(at)}"
        return None

    def copied(self) -> str | None:
        """A sign of a copy that the pinned scope does not have."""
        texts = self.found.texts
        now = _merged_spans(self._similar_places(texts))
        then = max(
            len(_merged_spans(self._similar_places(t)))
            for t in (self.pinned, self.whole)
        )
        if len(now) > then:
            at = ", ".join(self._line(place.start) for place in now)
            return f"there are {len(now)} similar places, at {at}; there were {then}"
        before = Counter(_runs(self.pinned)) | Counter(_runs(self.whole))
        after = Counter(_runs(texts))
        first = max(0, self.want.start - 2 * _NEAR)
        for row in _runs(self.pinned[first : self.want.stop + 2 * _NEAR]):
            if after[row] > before[row]:
                what = f"the lines from {_quoted(row[0])} to {_quoted(row[-1])}"
                return f"{what}, next to it, occur {after[row]} times"
        return None

    def _similar_places(self, texts: Sequence[bytes]) -> list[range]:
        """Places with two of the lines that the change removes or that are around it.

        The two lines are not both from above or both from below. They are as far apart
        as before, or one line more, or nearer if the lines between them may be gone.
        """
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


def _runs(texts: Sequence[bytes]) -> list[tuple[bytes, ...]]:
    """All runs of ``_NEAR`` + 1 lines."""
    size = _NEAR + 1
    return [tuple(texts[at : at + size]) for at in range(len(texts) - size + 1)]


def _merged_spans(spans: list[range]) -> list[range]:
    """Spans of lines, with overlapping ones merged."""
    found: list[range] = []
    for span in sorted(spans, key=lambda span: span.start):
        if found and span.start < found[-1].stop:
            found[-1] = range(found[-1].start, max(found[-1].stop, span.stop))
        else:
            found.append(span)
    return found


def shared(lines: Sequence[bytes], texts: Sequence[bytes]) -> list[int]:
    """The length of the longest common subsequence of ``lines`` and each head of
    ``texts``.

    One bit per text, so that a whole row is one addition (Crochemore et al., 2001).
    """
    places: dict[bytes, int] = {}
    for at, text in enumerate(texts):
        places[text] = places.get(text, 0) | 1 << at
    full = (1 << len(texts)) - 1
    row = full
    for line in lines:
        match = row & places.get(line, 0)
        row = ((row + match) | (row - match)) & full
    return [0, *accumulate(1 - (row >> at & 1) for at in range(len(texts)))]


def _quoted(line: bytes) -> str:
    return repr(line.decode(errors="replace").strip())
