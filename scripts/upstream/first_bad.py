"""Bisect the upstream commit that breaks a patch or changes a site.

A binary search over the first-parent commits of a range; the merge and the census
decide whether a commit is good. Like every bisection it assumes one change; if there
were several, it finds one of them. The result is verified: both the commit and its
parent are analyzed.
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
_QUOTED = 24
_FILES = 8


@dataclass(frozen=True)
class Difference:
    """The commit that changes a row; ``commit`` is None if nothing changes.

    ``since`` is the first commit of the search. If it is not the older end of the
    range, ``start`` describes it. ``blame`` quotes the commit's diff near the change.
    """

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
    """The row of a patch (its name or number) or site. Raises InputError if unknown."""
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


def first_bad(clone: Clone, row: str, good: str, bad: str, look: Look) -> Difference:
    """Bisect ``good..bad``; ``look`` returns the facts of a commit.

    Raises InputError if the row is not good at ``good``. If ``good`` is not on the line
    of ``bad``, the row must also be good where that line starts.
    """
    carried = clone.carried
    line = clone.line(good, bad)
    since, commits = line.since, line.commits
    is_site = row in contract_of(carried).expected
    analyzed: dict[str, Column] = {}
    keys: dict[str, str] = {}

    def state(commit: str) -> str:
        if commit not in keys:
            facts = look(commit)
            version = clone.source(commit).version
            [column] = columns(carried, [(version, facts)])
            analyzed[commit] = column
            keys[commit] = _key(column, facts, row)
        return keys[commit]

    def is_good(commit: str) -> bool:
        if is_site:
            return state(commit) == state(since)
        state(commit)
        return analyzed[commit].cell(row).outcome in _STILL_GOOD

    for commit, name in ((line.first, good), (since, f"{since[:10]}, {line.start}")):
        if not is_good(commit):
            label = analyzed[commit].cell(row).label
            if is_site:
                raise _differs(row, good, keys[commit], keys[since], line)
            what, step = f"{row} is not good at {name}", "start at an older commit"
            finding = Finding(what, expected="clean or offset", found=label,
                              next_step=step)  # fmt: skip
            raise InputError(f"{what}: it is {label}", (finding,))
    if is_good(commits[-1]):
        same = analyzed[commits[-1]].cell(row)
        before = analyzed[since].cell(row)
        return Difference(
            row,
            since,
            before.label,
            same.label,
            looked_at=len(keys),
            start=line.start,
        )
    # commits[low] is good (for -1: since is good), commits[high] is bad.
    low, high = -1, len(commits) - 1
    while high - low > 1:
        middle = (low + high) // 2
        if is_good(commits[middle]):
            low = middle
        else:
            high = middle
    parent = commits[low] if low >= 0 else since
    return _difference(clone, row, line, parent, commits[high], analyzed, keys)


def _differs(row: str, good: str, found: str, expected: str, line: Line) -> InputError:
    """The error for a site whose state at ``good`` is not that of the searched line."""
    since = line.since[:10]
    what = f"{row} is in another state at {good} than at {since}, {line.start}"
    step = f"give {since} as the older end to search from there"
    finding = Finding(what, expected=expected, found=found, next_step=step)
    return InputError(what, (finding,))


def _key(column: Column, facts: Facts, row: str) -> str:
    return "; ".join(site_key(facts, row)) or column.cell(row).label


def _difference(
    clone: Clone,
    row: str,
    line: Line,
    parent: str,
    commit: str,
    analyzed: dict[str, Column],
    keys: dict[str, str],
) -> Difference:
    before, after = analyzed[parent], analyzed[commit]
    date, subject = clones.text(
        clone.path, "log", "-1", "--no-show-signature", "--format=%aI%n%s", commit
    ).split("\n", 1)
    is_site = any(cell.row == row for cell in before.sites)
    if is_site:
        states = keys[parent], keys[commit]
    else:
        states = before.cell(row).label, after.cell(row).label
    return Difference(
        row,
        line.since,
        *states,
        commit,
        parent,
        date,
        subject,
        _blame(clone, parent, commit, _changed_cells(before, after, row)),
        len(analyzed),
        line.start,
    )


def text(found: Difference) -> str:
    """The result as a person reads it."""
    start = [f"  from    {found.since}: {found.start}"] if found.start else []
    if found.commit is None:
        return "\n".join([f"{found.row} does not change: {found.after}", *start])
    lines = [
        f"{found.row} changes with {found.commit}",
        f"  {found.subject}",
        f"  {found.date}",
        *start,
        f"  before  {found.before}  (at its parent {found.parent})",
        f"  after   {found.after}",
        f"  {found.looked_at} commits analyzed",
        "",
        *(f"    {line}" for line in found.blame),
    ]
    return "\n".join(lines)


def _changed_cells(before: Column, after: Column, row: str) -> list[tuple[Cell, Cell]]:
    """The row's cell before and after; a patch's changed sites come before it."""
    one = before.cell(row), after.cell(row)
    sites = [
        (old, new)
        for old, new in zip(before.sites, after.sites, strict=True)
        if old.row in one[0].sites and old.label != new.label
    ]
    return [*sites, one]


def _blame(
    clone: Clone, parent: str, commit: str, cells: list[tuple[Cell, Cell]]
) -> tuple[str, ...]:
    """The hunk of the commit's diff that is nearest to the first cell."""
    for old, new in cells:
        paths = [p for p in dict.fromkeys((old.path, new.path, new.moved_to)) if p]
        diff = clones.run(
            clone.path, "diff", "-M", "--unified=2", "--no-color", "--no-ext-diff",
            "--no-textconv", parent, commit, "--", *paths,
        ).stdout.decode(errors="replace")  # fmt: skip
        if diff:
            return _nearest(diff, old.line or 1)
    names = clones.text(clone.path, "diff", "--name-only", parent, commit).splitlines()
    more = f", and {len(names) - _FILES} more" if len(names) > _FILES else ""
    return (f"in other files: {', '.join(names[:_FILES])}{more}",)


def _nearest(diff: str, line: int) -> tuple[str, ...]:
    best: tuple[float, list[str]] = (float("inf"), [])
    for file in re.split(r"^(?=diff --git )", diff, flags=re.M)[1:]:
        head, *hunks = re.split(r"^(?=@@ )", file, flags=re.M)
        names = [n for n in head.splitlines() if not n.startswith(("index ", "diff "))]
        if not hunks:
            best = min(best, (float("inf"), names[:_QUOTED]), key=lambda b: not b[1])
        for hunk in hunks:
            found = re.match(r"@@ -(\d+)(?:,(\d+))? ", hunk)
            assert found is not None
            start, size = int(found[1]), int(found[2] or 1)
            away = max(start - line, line - (start + size - 1), 0)
            if away < best[0]:
                best = away, [*names, *hunk.splitlines()]
    lines = best[1]
    cut = [f"… {len(lines) - _QUOTED} more lines"] if len(lines) > _QUOTED else []
    return (*lines[:_QUOTED], *cut)
