"""The parts of a report: sections with sentences, tables and drawings."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone

from gatekit.records.checks import Check
from gatekit.report.documents import Arm
from gatekit.report.schema import StageReport, StageState


@dataclass(frozen=True)
class Mark:
    """A word with a meaning. ``kind`` sets its colour on the page."""

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
    """A table. ``numbers`` are the right-aligned columns; a ``brief`` table is also in
    the Markdown; a ``folded`` table is collapsed on the page."""

    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[Text, ...], ...]
    numbers: tuple[int, ...] = ()
    brief: bool = False
    folded: bool = False


@dataclass(frozen=True)
class Drawing:
    """An SVG. A ``wide`` one scrolls on a narrow screen."""

    caption: str
    svg: str
    wide: bool = False


@dataclass(frozen=True)
class Section:
    """A section. ``stands_in`` names the stand-in that ran and is shown with each
    figure. ``missing`` has sentences about missing parts, shown in their place."""

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
        """Why the stage did not pass. For a stage that did not run, see ``missing``."""
        stage = self.stage
        return (
            "" if stage is None or stage.state is StageState.NOT_RUN else stage.reason
        )


def mark(state: StageState) -> Mark:
    return Mark(state.value, _KINDS[state])


def verdict_mark(verdict: str) -> Mark:
    """The mark of a comparison's verdict, which may also be "invalid"."""
    kinds = {state.value: kind for state, kind in _KINDS.items()}
    return Mark(verdict, kinds.get(verdict, "unsure"))


def claims(caption: str, found: Iterable[Check]) -> Table:
    """A table of checks, those that do not hold first. Leaves the column of expected
    values out if no check has one."""
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
    """A table of the controls that do not hold, if any, and a folded table of all."""
    broken = [check for check in found if not check.holds]
    held = f"{len(found) - len(broken)} of {len(found)} hold"
    every = replace(claims(f"Controls{of}: {held}", found), folded=True)
    why = claims(f"Why this is not evidence{of}", broken)
    return (why, every) if broken else (every,)


def origins(arms: Iterable[Arm]) -> Table:
    """A table of what each arm's runs recorded about their origin."""
    rows = []
    for arm in arms:
        origin = arm.origin or {}
        words = [origin.get(name) or "not recorded" for name in _ORIGIN]
        rows.append((arm.arm, *words))
    header = ("arm", *_ORIGIN)
    return Table("Origins recorded by the runs", header, tuple(rows))


def value_range(values: Iterable[float], form: str = "g") -> str:
    """One value if all are equal, else the smallest and the largest."""
    texts = list(dict.fromkeys(format(v, form) for v in sorted(values)))
    if not texts:
        return "none"
    return texts[0] if len(texts) == 1 else f"{texts[0]} to {texts[-1]}"


def duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02} s"
    return f"{minutes // 60} h {minutes % 60:02} min"


def utc_time(epoch: float) -> str:
    """Date and time in UTC, because readers and machines are in several time zones."""
    if not epoch:
        return "not recorded"
    at = datetime.fromtimestamp(epoch, tz=timezone.utc)
    return at.strftime("%Y-%m-%d %H:%M UTC")
