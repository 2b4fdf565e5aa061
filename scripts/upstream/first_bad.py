"""The first upstream commit after which a patch, or a site, is not what it was.

A binary search over the first-parent commits of a range, with the merge and the census
as the oracle. It takes for granted that what went bad stayed bad; where it changed
more than once, it finds one of the changes. What it finds is proven either way: the
commit and the one before it are both looked at.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from overlaykit.core.errors import Finding, InputError
from overlaykit.repository import clones
from overlaykit.series.carried import Carried
from upstream.cells import columns, site_key
from upstream.clone import Clone, Line
from upstream.contracts import contract_of
from upstream.facts import Facts
from upstream.outcomes import Cell, Column, Outcome

Look = Callable[[str], Facts]
_STILL_GOOD = {Outcome.CLEAN, Outcome.OFFSET}
_BLAMED = 24
_NAMED = 8


@dataclass(frozen=True)
class Change:
    """``commit`` is None where nothing changes. ``since`` is the commit that the search
    began at, and ``start`` what that is where it is not the older end of the range;
    ``blame`` quotes the commit's diff where the change is."""

    row: str
    since: str
    before: str
    after: str
    commit: str | None = None
    parent: str | None = None
    date: str = ""
    subject: str = ""
    blame: tuple[str, ...] = ()
    looked_at: int = 0
    start: str = ""


def row_named(carried: Carried, name: str) -> str:
    """A patch by its name or number, or a site. Raises InputError where it is none."""
    patches = [patch.name.removesuffix(".patch") for patch in carried.series.patches]
    sites = list(contract_of(carried).expected)
    wanted = name.removesuffix(".patch")
    found = [
        row for row in (*patches, *sites) if wanted in (row, row.partition("-")[0])
    ]
    if len(found) == 1:
        return found[0]
    known = ", ".join((*patches, *sites))
    finding = Finding(
        "no such patch or site", expected=f"one of {known}", found=name,
        next_step="name one of these",
    )  # fmt: skip
    raise InputError(f"{carried.name} has no patch or site {name!r}", (finding,))


def first_bad(clone: Clone, row: str, good: str, bad: str, look: Look) -> Change:
    """Search ``good..bad``; ``look`` gives the facts of a commit.

    Raises InputError where the row is not good at ``good``, or, with that beside the
    line of ``bad``, not at the commit from which the line starts.
    """
    carried = clone.carried
    line = clone.line(good, bad)
    since, commits = line.since, line.commits
    is_site = row in contract_of(carried).expected
    looked: dict[str, Column] = {}
    keys: dict[str, str] = {}

    def state(commit: str) -> str:
        if commit not in keys:
            facts = look(commit)
            version = clone.source(commit).version
            [column] = columns(carried, [(version, facts)])
            looked[commit] = column
            keys[commit] = _key(column, facts, row)
        return keys[commit]

    def is_good(commit: str) -> bool:
        if is_site:
            return state(commit) == state(since)
        state(commit)
        return looked[commit].cell(row).outcome in _STILL_GOOD

    for commit, name in ((line.first, good), (since, f"{since[:10]}, {line.start}")):
        if not is_good(commit):
            label = looked[commit].cell(row).label
            if is_site:
                raise _another(row, good, keys[commit], keys[since], line)
            what, step = f"{row} is not good at {name}", "begin at an older commit"
            finding = Finding(what, expected="clean or offset", found=label,
                              next_step=step)  # fmt: skip
            raise InputError(f"{what}: it is {label}", (finding,))
    if is_good(commits[-1]):
        same = looked[commits[-1]].cell(row)
        return Change(
            row, since, looked[since].cell(row).label, same.label, looked_at=len(keys),
            start=line.start,
        )  # fmt: skip
    # The commit at `low` is good (since, if there is none), that at `high` is bad.
    low, high = -1, len(commits) - 1
    while high - low > 1:
        middle = (low + high) // 2
        if is_good(commits[middle]):
            low = middle
        else:
            high = middle
    parent = commits[low] if low >= 0 else since
    return _change(clone, row, line, parent, commits[high], looked, keys)


def _another(row: str, good: str, found: str, begins: str, line: Line) -> InputError:
    """The error for a site that changed beside the line that is searched."""
    since = line.since[:10]
    what = f"{row} is not at {good} what it is at {since}, {line.start}"
    step = f"give {since} as the older end, to search from there"
    finding = Finding(what, expected=begins, found=found, next_step=step)
    return InputError(what, (finding,))


def _key(column: Column, facts: Facts, row: str) -> str:
    return f"{'; '.join(site_key(facts, row))}" or column.cell(row).label


def _change(
    clone: Clone,
    row: str,
    line: Line,
    parent: str,
    commit: str,
    looked: dict[str, Column],
    keys: dict[str, str],
) -> Change:
    before, after = looked[parent], looked[commit]
    date, subject = clones.text(
        clone.path, "log", "-1", "--no-show-signature", "--format=%aI%n%s", commit
    ).split("\n", 1)
    is_site = any(cell.row == row for cell in before.sites)
    told = (keys[parent], keys[commit]) if is_site else (
        before.cell(row).label, after.cell(row).label,
    )  # fmt: skip
    return Change(
        row,
        line.since,
        *told,
        commit,
        parent,
        date,
        subject,
        _blame(clone, parent, commit, _turned(before, after, row)),
        len(looked),
        line.start,
    )


def _turned(before: Column, after: Column, row: str) -> list[tuple[Cell, Cell]]:
    """The cell, before and after; of a patch its sites that changed come first."""
    one = before.cell(row), after.cell(row)
    named = {reason.partition(":")[0] for reason in one[0].reasons}
    sites = [
        (old, new)
        for old, new in zip(before.sites, after.sites, strict=True)
        if old.row in named and old.label != new.label
    ]
    return [*sites, one]


def _blame(
    clone: Clone, parent: str, commit: str, cells: list[tuple[Cell, Cell]]
) -> tuple[str, ...]:
    """The hunk of the commit's diff that is nearest to the first of the cells."""
    for old, new in cells:
        paths = [p for p in dict.fromkeys((old.path, new.path, new.moved_to)) if p]
        diff = clones.run(
            clone.path, "diff", "-M", "--unified=2", "--no-color", "--no-ext-diff",
            "--no-textconv", parent, commit, "--", *paths,
        ).stdout.decode(errors="replace")  # fmt: skip
        if diff:
            return _nearest(diff, old.line or 1)
    names = clones.text(clone.path, "diff", "--name-only", parent, commit).splitlines()
    more = f", and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return (f"in other files: {', '.join(names[:_NAMED])}{more}",)


def _nearest(diff: str, line: int) -> tuple[str, ...]:
    best: tuple[float, list[str]] = (float("inf"), [])
    for file in re.split(r"^(?=diff --git )", diff, flags=re.M)[1:]:
        head, *hunks = re.split(r"^(?=@@ )", file, flags=re.M)
        names = [n for n in head.splitlines() if not n.startswith(("index ", "diff "))]
        if not hunks:
            best = min(best, (float("inf"), names[:_BLAMED]), key=lambda b: not b[1])
        for hunk in hunks:
            found = re.match(r"@@ -(\d+)(?:,(\d+))? ", hunk)
            assert found is not None
            start, size = int(found[1]), int(found[2] or 1)
            away = max(start - line, line - (start + size - 1), 0)
            if away < best[0]:
                best = away, [*names, *hunk.splitlines()]
    lines = best[1]
    cut = [f"… {len(lines) - _BLAMED} lines more"] if len(lines) > _BLAMED else []
    return (*lines[:_BLAMED], *cut)
