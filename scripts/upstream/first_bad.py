"""Bisect the upstream commit that breaks a patch or changes a site.

A binary search over the first-parent commits of a range; the merge and the census
decide whether a commit is good. Like every bisection it assumes one change; if there
were several, it finds one of them. The result is verified: both the commit and its
parent are analyzed. Commits that touch a file of the series or of its sites come first.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from overlaykit.core.errors import Finding, InputError
from overlaykit.repository import clones
from overlaykit.series.carried import Carried
from upstream.cells import columns, site_key
from upstream.clone import Clone, Line, watched
from upstream.contracts import contract_of
from upstream.facts import Facts
from upstream.outcomes import Cell, Column, Outcome

Look = Callable[[str, bool], Facts]
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


@dataclass
class _Search:
    """What is known about the commits of a search for one row.

    Whether a patch lands does not depend on whether its sites are live, so the trees
    of the commits between are not run for it.
    """

    clone: Clone
    row: str
    look: Look
    is_site: bool
    known: dict[tuple[str, bool], tuple[Facts, Column]] = field(default_factory=dict)

    def facts(self, commit: str, run: bool = True) -> Facts:
        return self._at(commit, run)[0]

    def column(self, commit: str, run: bool = True) -> Column:
        return self._at(commit, run)[1]

    def key(self, commit: str) -> str:
        """The site's state."""
        facts, column = self._at(commit, True)
        return "; ".join(site_key(facts, self.row)) or column.cell(self.row).label

    def is_good(self, commit: str, since: str) -> bool:
        if self.is_site:
            return self.key(commit) == self.key(since)
        return self.column(commit, run=False).cell(self.row).outcome in _STILL_GOOD

    @property
    def looked_at(self) -> int:
        return len({commit for commit, _ in self.known})

    def _at(self, commit: str, run: bool) -> tuple[Facts, Column]:
        if (commit, run) not in self.known:
            facts = self.look(commit, run)
            version = self.clone.source(commit).version
            [column] = columns(self.clone.carried, [(version, facts)])
            self.known[commit, run] = facts, column
        return self.known[commit, run]


def first_bad(clone: Clone, row: str, good: str, bad: str, look: Look) -> Difference:
    """Bisect ``good..bad``; ``look`` returns the facts of a commit, and says whether
    its tree must be run for that.

    Raises InputError if the row is not good at ``good``. If ``good`` is not on the line
    of ``bad``, the row must also be good where that line starts.
    """
    carried = clone.carried
    line = clone.line(good, bad)
    since, commits = line.since, line.commits
    search = _Search(clone, row, look, row in contract_of(carried).expected)
    for commit, name in ((line.first, good), (since, f"{since[:10]}, {line.start}")):
        if not search.is_good(commit, since):
            if search.is_site:
                raise _differs(row, good, search.key(commit), search.key(since), line)
            label = search.column(commit).cell(row).label
            what, step = f"{row} is not good at {name}", "start at an older commit"
            finding = Finding(what, expected="clean or offset", found=label,
                              next_step=step)  # fmt: skip
            raise InputError(f"{what}: it is {label}", (finding,))
    if search.is_good(commits[-1], since):
        return Difference(
            row,
            since,
            search.column(since).cell(row).label,
            search.column(commits[-1]).cell(row).label,
            looked_at=search.looked_at,
            start=line.start,
        )
    at = _first(search, line)
    parent = commits[at - 1] if at else since
    return _difference(search, line, parent, commits[at])


def _first(search: _Search, line: Line) -> int:
    """The place of a bad commit after a good one.

    It is looked for among the commits that touch a file of the row first. If what the
    row depends on is elsewhere, the commit before the one found is bad too; then it is
    looked for among all between.
    """
    commits, since = line.commits, line.since
    places = {commit: at for at, commit in enumerate(commits)}
    ends = [search.facts(end, search.is_site) for end in (since, commits[-1])]
    touching = search.clone.touching(line, watched(search.clone.carried, ends))
    likely = sorted({*(places[commit] for commit in touching), len(commits) - 1})
    # The place low is good (-1: the start of the line), and high is bad.
    low, high = _bisected(search, line, [-1, *likely])
    if high - low > 1:
        if search.is_good(commits[high - 1], since):
            return high
        low, high = _bisected(search, line, range(low, high))
    return high


def _bisected(search: _Search, line: Line, places: Sequence[int]) -> tuple[int, int]:
    """Two neighbouring places, of which the first is good and the second is bad, as the
    first and the last one are."""
    low, high = 0, len(places) - 1
    while high - low > 1:
        middle = (low + high) // 2
        if search.is_good(line.commits[places[middle]], line.since):
            low = middle
        else:
            high = middle
    return places[low], places[high]


def _differs(row: str, good: str, found: str, expected: str, line: Line) -> InputError:
    """The error for a site whose state at ``good`` is not that of the searched line."""
    since = line.since[:10]
    what = f"{row} is in another state at {good} than at {since}, {line.start}"
    step = f"give {since} as the older end to search from there"
    finding = Finding(what, expected=expected, found=found, next_step=step)
    return InputError(what, (finding,))


def _difference(search: _Search, line: Line, parent: str, commit: str) -> Difference:
    clone, row = search.clone, search.row
    before, after = search.column(parent), search.column(commit)
    date, subject = clones.text(
        clone.path, "log", "-1", "--no-show-signature", "--format=%aI%n%s", commit
    ).split("\n", 1)
    if search.is_site:
        states = search.key(parent), search.key(commit)
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
        search.looked_at,
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
