"""What both reports are made of: sections of words, tables and drawings."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone

from gatekit.report.documents import Arm, Check
from gatekit.report.schema import StageReport, StageState


@dataclass(frozen=True)
class Mark:
    """A word with a meaning. ``kind`` colours it where there is colour."""

    text: str
    kind: str


Text = str | Mark

HOLDS, FAILS = Mark("holds", "good"), Mark("does not hold", "bad")
_ORIGIN = ("series", "tree", "image", "command")
_KINDS = {
    StageState.PASS: "good",
    StageState.FAIL: "bad",
    StageState.INCONCLUSIVE: "unsure",
    StageState.ERROR: "bad",
    StageState.NOT_RUN: "absent",
}


@dataclass(frozen=True)
class Table:
    """``numbers`` are the columns set to the right; ``brief``: in the Markdown, too;
    ``folded``: of interest only to who asks."""

    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[Text, ...], ...]
    numbers: tuple[int, ...] = ()
    brief: bool = False
    folded: bool = False


@dataclass(frozen=True)
class Drawing:
    """An SVG. A wide one scrolls where there is no room for it."""

    caption: str
    svg: str
    wide: bool = False


@dataclass(frozen=True)
class Section:
    """``stands_in`` is what ran in place of the real thing: shown with each figure.
    ``missing`` says what is not here, where it would be."""

    name: str
    title: str
    stage: StageReport | None
    stands_in: str = ""
    said: tuple[str, ...] = ()
    drawings: tuple[Drawing, ...] = ()
    tables: tuple[Table, ...] = ()
    missing: tuple[str, ...] = ()

    @property
    def state(self) -> Mark:
        return mark(self.stage.state if self.stage else StageState.NOT_RUN)

    @property
    def why(self) -> str:
        """Why it is not a pass; of what did not run, ``missing`` says it."""
        stage = self.stage
        return (
            "" if stage is None or stage.state is StageState.NOT_RUN else stage.reason
        )


def mark(state: StageState) -> Mark:
    return Mark(state.value, _KINDS[state])


def verdict_mark(verdict: str) -> Mark:
    """Of an engine's own verdict; "invalid" is one that a stage has not."""
    kinds = {state.value: kind for state, kind in _KINDS.items()}
    return Mark(verdict, kinds.get(verdict, "unsure"))


def claims(caption: str, found: Iterable[Check]) -> Table:
    """Those that do not hold first. Some say in their name alone what is expected."""
    ordered = sorted(found, key=lambda check: check.holds)
    whole = any(check.expected for check in ordered)
    return Table(
        caption,
        ("", "check", *(["expected"] if whole else []), "found"),
        tuple(
            (
                HOLDS if check.holds else FAILS,
                check.name,
                *([check.expected] if whole else []),
                check.found,
            )
            for check in ordered
        ),
    )


def controls(found: Sequence[Check], of: str = "") -> tuple[Table, ...]:
    """Those that do not hold, if any; all of them for who asks."""
    broken = [check for check in found if not check.holds]
    held = f"{len(found) - len(broken)} of {len(found)} hold"
    every = replace(claims(f"Controls{of}: {held}", found), folded=True)
    why = claims(f"Why this is no evidence{of}", broken)
    return (why, every) if broken else (every,)


def origins(arms: Iterable[Arm]) -> Table:
    """What each arm's runs were of, as they say themselves."""
    rows = []
    for arm in arms:
        told = arm.origin or {}
        words = [told.get(name) or "not told" for name in _ORIGIN]
        rows.append((arm.arm, *words))
    header = ("arm", *_ORIGIN)
    return Table("What the arms say that they were", header, tuple(rows))


def value_range(values: Iterable[float], form: str = "g") -> str:
    """One value where all are the same, else the least and the greatest."""
    told = list(dict.fromkeys(format(v, form) for v in sorted(values)))
    if not told:
        return "none"
    return told[0] if len(told) == 1 else f"{told[0]} to {told[-1]}"


def duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02} s"
    return f"{minutes // 60} h {minutes % 60:02} min"


def utc_time(epoch: float) -> str:
    """Of no time zone but UTC: readers and machines are in several."""
    if not epoch:
        return "not recorded"
    at = datetime.fromtimestamp(epoch, tz=timezone.utc)
    return at.strftime("%Y-%m-%d %H:%M UTC")
