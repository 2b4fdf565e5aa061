"""The matrix as plain text and as Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace

from overlaykit.cli import table
from overlaykit.core.wording import one_line
from upstream.advice import Advice, headline
from upstream.outcomes import Cell, Column, Outcome

_CODES = {
    Outcome.CLEAN: "clean",
    Outcome.OFFSET: "offs",
    Outcome.MERGED: "merge",
    Outcome.RENAMED: "renam",
    Outcome.UPSTREAMED: "upstr",
    Outcome.SUPERSEDED: "super",
    Outcome.LEFT_BEHIND: "LEFT",
    Outcome.REVERTED: "back",
    Outcome.MOVED: "moved",
    Outcome.MISPLACED: "MISPL",
    Outcome.AMBIGUOUS: "AMBIG",
    Outcome.CONFLICT: "CONFL",
    Outcome.GONE: "GONE",
    Outcome.UNSURE: "?",
    Outcome.PREDATES: "older",
}
MEANING = {
    Outcome.CLEAN: "the change applies where it was made",
    Outcome.OFFSET: "the change applies at other line numbers",
    Outcome.MERGED: "the change applies next to other changes",
    Outcome.RENAMED: "the change applies in the renamed file",
    Outcome.UPSTREAMED: "upstream has the same lines",
    Outcome.SUPERSEDED: "upstream has the change in other lines",
    Outcome.LEFT_BEHIND: "upstream changed the other sites but not this",
    Outcome.REVERTED: "upstream had the change and reverted it",
    Outcome.MOVED: "the code is in another file",
    Outcome.MISPLACED: "the merge would put it in the wrong place",
    Outcome.AMBIGUOUS: "the change could belong in several places",
    Outcome.CONFLICT: "upstream changed the same lines or their meaning",
    Outcome.GONE: "the code no longer exists",
    Outcome.UNSURE: "the source does not show it",
    Outcome.PREDATES: "older than the code that the series changes",
}
DEAD, MOVED = "!", ">"
TITLE = "Which patches still apply upstream"
_NARROW = 60


def code(cell: Cell) -> str:
    """A cell in a few characters."""
    moved = MOVED if cell.moved_to and cell.outcome is not Outcome.MOVED else ""
    return _CODES[cell.outcome] + (DEAD if cell.dead else "") + moved


def short_names(columns: Sequence[Column]) -> list[str]:
    """The versions' names without their common leading numbers."""
    names = [column.version.name for column in columns]
    parts = [name.split(".") for name in names]
    shared = 0
    while len(names) > 2 and len({tuple(p[: shared + 1]) for p in parts}) == 1:
        shared += 1
    cut = ["." * bool(shared) + ".".join(p[shared:]) for p in parts]
    return [name.replace(".post", "p") for name in cut]


def folded(
    columns: Sequence[Column], advice: Sequence[Sequence[Advice]]
) -> tuple[list[Column], list[Sequence[Advice]]]:
    """The columns without the commits of a range at which nothing changes. The column
    before those tells how many they are."""
    groups: list[list[tuple[Column, Sequence[Advice]]]] = []
    for one in zip(columns, advice, strict=True):
        if groups and one[0].version.between and _said(*one) == _said(*groups[-1][0]):
            groups[-1].append(one)
        else:
            groups.append([one])
    kept = [_noted(group[0][0], len(group) - 1) for group in groups]
    return kept, [group[0][1] for group in groups]


def _noted(column: Column, alike: int) -> Column:
    if not alike:
        return column
    version = column.version
    about = f"{version.about}; then {alike} more without a change"
    return replace(column, version=replace(version, about=about))


def _said(column: Column, advice: Sequence[Advice]) -> tuple[str, ...]:
    """What a column says, without line numbers."""
    dangers = (re.sub(r":\d+", "", danger) for danger in column.dangers)
    return (*(cell.label for cell in column.cells), headline(advice), *dangers)


def text(
    columns: Sequence[Column], advice: Sequence[Sequence[Advice]], width: int
) -> str:
    """The matrix in blocks that fit ``width``, the legend, and the advice."""
    blocks = list(_blocks(columns, max(width, _NARROW)))
    used = {cell.outcome for column in columns for cell in column.cells}
    legend = [
        f"  {_CODES[outcome]:<6} {outcome.value}: {MEANING[outcome]}"
        for outcome in Outcome
        if outcome in used
    ]
    cells = [cell for column in columns for cell in column.cells]
    if any(cell.dead for cell in cells):
        legend.append(f"  {DEAD:<6} dead: native block-FP8 layers never run this call")
    if any(cell.moved_to for cell in cells):
        legend.append(f"  {MOVED:<6} the site is in another file than in the series")
    sections = [
        "\n".join(_lines(column, todo))
        for column, todo in zip(columns, advice, strict=True)
    ]
    return "\n\n".join([*blocks, "\n".join(legend), *sections])


def _blocks(columns: Sequence[Column], width: int) -> Iterable[str]:
    numbers = [cell.number for cell in columns[0].cells]
    names = short_names(columns)
    room = width - max(map(len, numbers))
    start = 0
    while start < len(columns):
        stop, used = start, 0
        while stop < len(columns):
            used += 2 + max(
                len(names[stop]), *(len(code(c)) for c in columns[stop].cells)
            )
            if used > room and stop > start:
                break
            stop += 1
        shown = columns[start:stop]
        rows = [
            [number, *(code(column.cells[i]) for column in shown)]
            for i, number in enumerate(numbers)
        ]
        yield table(["", *names[start:stop]], rows)
        start = stop


def _lines(column: Column, advice: Sequence[Advice]) -> list[str]:
    about = f"  ({column.version.about})" if column.version.about else ""
    lines = [f"{column.version.name}: {headline(advice)}{about}"]
    lines += [f"  DANGER  {danger}" for danger in column.dangers]
    lines += [f"  {reason}" for one in advice for reason in one.reasons]
    lines += [f"  unforeseen call  {call}" for call in column.unforeseen]
    lines += [f"  call without a known reader  {call}" for call in column.unpaired]
    return lines


def markdown(
    columns: Sequence[Column], advice: Sequence[Sequence[Advice]], command: str
) -> str:
    """The matrix, the legend and the advice, as a page or the text of an issue."""
    names = [column.version.name for column in columns]
    lines = [
        f"# {TITLE}",
        "",
        f"Made by {_code(command)}.",
        "",
        f"| | {' | '.join(map(_escape, names))} |",
        "|---|" + "---|" * len(names),
    ]
    for number, row in enumerate(cell.row for cell in columns[0].cells):
        cells = (_cell(column.cells[number]) for column in columns)
        lines.append(f"| {row} | {' | '.join(cells)} |")
    lines += ["", "| version | what to do |", "|---|---|"]
    for column, todo in zip(columns, advice, strict=True):
        danger = " **dangerous mix**" if column.dangers else ""
        name = _escape(column.version.name)
        lines.append(f"| {name} | {_escape(headline(todo))}{danger} |")
    for column, todo in zip(columns, advice, strict=True):
        head, *rest = _lines(column, todo)
        lines += ["", f"**{_escape(head)}**", ""]
        lines += [f"- {_escape(line.strip())}" for line in rest]
    used = {cell.outcome for column in columns for cell in column.cells}
    lines += ["", "| word | means |", "|---|---|"]
    lines += [f"| {o.value} | {MEANING[o]} |" for o in Outcome if o in used]
    return "\n".join(lines) + "\n"


def _cell(cell: Cell) -> str:
    label = _escape(cell.label)
    return label if cell.outcome.adopted or cell.outcome.lands else f"**{label}**"


_MARKUP = {ord(sign): f"\\{sign}" for sign in "\\`*_|[]"} | {
    ord(sign): f"&#{ord(sign)};" for sign in "<>#@&"
}


def _escape(line: str) -> str:
    """Upstream's text for a table or a list: one line, without markup or mentions."""
    return one_line(line).translate(_MARKUP)


def _code(line: str) -> str:
    """A command as code, between more backticks than it contains in a row."""
    ticks = "`" * (1 + max(map(len, re.findall("`+", line)), default=0))
    room = " " if len(ticks) > 1 else ""
    return f"{ticks}{room}{one_line(line)}{room}{ticks}"
