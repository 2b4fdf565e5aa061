"""Whether the engine's answer to a drift is correct, from how the drift was made.

The hunk belongs to the pinned lines that it was made for, wherever they are now, and
nowhere else. Similarity does not count.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

from lookalikes.drifting import Case, Drift, spot_of
from lookalikes.test_traps import PATH, Files
from overlaykit.planning.landing import plan_drifted
from overlaykit.planning.plan import State


class Correctness(Enum):
    """Whether an answer of the engine is correct."""

    RIGHT = "right"
    REFUSED = "refused"
    INDISTINGUISHABLE = "in a copy that the text alone takes for the original"
    WRONG = "WRONG"


def truths(drift: Drift) -> set[str]:
    """The correct contents with the hunk; empty if the lines that it changes are gone.

    Lines may be added after the line before them or before the line after them.
    """
    spots: list[list[tuple[range, list[str]]]] = []
    for change in drift.case.hunk.changes:
        added = [line.decode() for line in change.added]
        ways = []
        if change.removed:
            spot = spot_of(drift, change.old_line, change.removed)
            ways = [spot] if spot is not None else []
        else:
            before, after = drift.at(change.old_line - 1), drift.at(change.old_line)
            if before is not None:
                ways.append(range(before + 1, before + 1))
            if after is not None:
                ways.append(range(after, after))
        spots.append([(way, added) for way in ways])
    return set(_filled([line.text for line in drift.lines], spots))


def _filled(
    texts: list[str], spots: list[list[tuple[range, list[str]]]]
) -> Iterator[str]:
    if not spots:
        yield "".join(texts)
        return
    *rest, last = spots
    for way, added in last:
        done = [*texts[: way.start], *added, *texts[way.stop :]]
        yield from _filled(done, rest)


def is_taken(drift: Drift) -> bool:
    """Whether upstream has the hunk, at its original place."""
    for change in drift.case.hunk.changes:
        for i, text in enumerate(change.added):
            at = drift.at(-(change.new_line + i))
            if at is None or drift.lines[at].text != text.decode():
                return False
        if any(drift.at(change.old_line + i) for i in range(len(change.removed))):
            return False
        if not change.added and "take" not in drift.done:
            return False
    return True


@dataclass(frozen=True)
class Answer:
    """The engine's answer to a drift, and whether it is correct."""

    verdict: Correctness
    state: State
    detail: str
    after: str


def check_answer(drift: Drift) -> Answer:
    case = drift.case
    landed = plan_drifted(
        case.carried, Files({PATH: drift.text}), Files({PATH: case.old})
    )
    [hunk] = landed.hunks
    after = landed.files[PATH].decode()
    return Answer(
        _correctness(drift, hunk.state, after), hunk.state, hunk.detail, after
    )


def _correctness(drift: Drift, state: State, after: str) -> Correctness:
    if not state.lands:
        assert after == drift.text
        return Correctness.REFUSED
    if rebound(drift):
        return Correctness.WRONG
    if state is State.UPSTREAMED:
        if is_taken(drift):
            return Correctness.RIGHT
        by_text = _common(drift.case.new, drift.text)
        done = _kept(drift, drift.case.new)
    else:
        if after in truths(drift) or _by_name(drift):
            return Correctness.RIGHT
        by_text = _explained(drift, after)
        done = _kept(drift, drift.case.old)
    return Correctness.INDISTINGUISHABLE if done < by_text else Correctness.WRONG


def _kept(drift: Drift, side: str) -> int:
    """The number of lines of a text that still exist, from the edits made."""
    lines = side.splitlines(True)
    new = side != drift.case.old
    numbers = _numbers(drift.case, new)
    return sum(
        drift.lines[at].text == text
        for text, origin in zip(lines, numbers, strict=True)
        if (at := drift.at(origin)) is not None
    )


def _numbers(case: Case, new: bool) -> list[int]:
    """The origins of the lines of the pinned file, without or with the hunk."""
    numbers = list(range(1, len(case.old.splitlines()) + 1))
    for change in reversed(case.hunk.changes if new else ()):
        first = change.old_line - 1
        added = [-(change.new_line + i) for i in range(len(change.added))]
        numbers[first : first + len(change.removed)] = added
    return numbers


def _explained(drift: Drift, after: str) -> int:
    """The number of pinned lines that would still exist if the landing were correct.

    If that is more than really exist, the text looks like another history.
    """
    before, done = drift.text.splitlines(True), after.splitlines(True)
    most = min(len(before), len(done))
    head = min(most, _alike(before, done))
    tail = min(most, _alike(before[::-1], done[::-1]))
    first, last = drift.case.hunk.changes[0], drift.case.hunk.changes[-1]
    end = last.old_line - 1 + len(last.removed)
    old = drift.case.old.splitlines(True)
    above, below = old[: first.old_line - 1], old[end:]
    # A change next to an equal line is the same change one line further on.
    ways = (
        (head, len(before) - min(tail, most - head)),
        (
            min(head, most - tail),
            len(before) - tail,
        ),
    )
    return max(
        _common("".join(above), "".join(before[:start]))
        + _common("".join(below), "".join(before[stop:]))
        for start, stop in ways
    ) + (end - first.old_line + 1)


def _alike(one: list[str], two: list[str]) -> int:
    """The number of equal lines at the beginning."""
    pairs = enumerate(zip(one, two, strict=False))
    return next((n for n, (a, b) in pairs if a != b), min(len(one), len(two)))


def _common(one: str, two: str) -> int:
    """The length of the longest common subsequence of lines."""
    row = [0] * (len(two.splitlines()) + 1)
    for line in one.splitlines():
        last = 0
        for at, other in enumerate(two.splitlines(), 1):
            last, row[at] = (
                row[at],
                last + 1 if line == other else max(row[at], row[at - 1]),
            )
    return row[-1]


def rebound(drift: Drift) -> bool:
    """Whether the name of the original now means something else."""
    return "rebind" in drift.done


def _by_name(drift: Drift) -> bool:
    """Whether there is a copy under the old name of an unchanged original.

    Then only the name decides which of the two equal definitions is meant.
    """
    return "rename" in drift.done and bool(truths(drift))
