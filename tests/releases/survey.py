"""One unpatched release: its census, and a run of its functions on real kernels.

A site that raises in every case is reported as not run, with the error, and never as
wrong: the proof's stand-ins may not fit that release.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from overlaykit.core.errors import Finding
from overlaykit.trees.tree import Tree
from xscale.census import SiteRow, problems, take_census
from xscale.liveness import NATIVE_BLOCK_FP8, LiveState, with_lives
from xscale.numeric import CaseResult, SiteSummary, findings_of, summarize

PACKAGE = "python/sglang/"


class CaseVerdict(Enum):
    """The worst result of one case."""

    RIGHT = "right"
    COSTS = "right, with a finding"
    WRONG = "wrong"
    RAISES = "raises"
    NOT_RUN = "not run"


@dataclass(frozen=True)
class Surveyed:
    """``dangers`` are the dangerous mixes that the census finds. ``lives`` has each
    format's states, as on gfx95 with ROCm 7.2. ``not_run`` maps a site to its error;
    ``missing`` says why the proof cannot run.
    """

    version: str
    census: tuple[SiteRow, ...]
    dangers: tuple[Finding, ...]
    verdicts: dict[str, int]
    lives: dict[str, tuple[LiveState, ...]]
    sites: tuple[SiteSummary, ...]
    findings: tuple[Finding, ...]
    not_run: dict[str, str]
    missing: tuple[str, ...] = ()

    def wrong(self) -> set[tuple[str, str]]:
        """The sites and routes with a reading that differs from the kernel's result."""
        return {(s.site, s.route) for s in self.sites if s.bytes < s.readings}


def survey(
    version: str,
    tree: Tree,
    outcomes: Sequence[CaseResult],
    lives: Mapping[str, Mapping[str, LiveState]],
    missing: Iterable[str] = (),
) -> Surveyed:
    """Combine the census with the results of the cases, and with the states by format
    and site."""
    native = lives.get(NATIVE_BLOCK_FP8.name, {})
    census = with_lives(take_census(tree, within=PACKAGE), native)
    read = {reading.site for outcome in outcomes for reading in outcome.readings}
    verdicts = Counter(verdict(outcome, read) for outcome in outcomes)
    return Surveyed(
        version,
        census.rows,
        tuple(found.finding for found in problems(census) if found.danger),
        {v.value: verdicts[v] for v in CaseVerdict} if outcomes else {},
        {form: tuple(states.values()) for form, states in lives.items()},
        summarize(outcomes),
        tuple(f for f in findings_of(outcomes) if f.site in read),
        _not_run(outcomes, read),
        tuple(missing),
    )


def verdict(outcome: CaseResult, read: Collection[str]) -> CaseVerdict:
    """``read`` are the sites that were read in any case of this release."""
    if outcome.raised is not None:
        some = any(site in read for site in outcome.case.sites)
        return CaseVerdict.RAISES if some else CaseVerdict.NOT_RUN
    if not all(reading.bytes for reading in outcome.readings):
        return CaseVerdict.WRONG
    return CaseVerdict.RIGHT if outcome.ok else CaseVerdict.COSTS


def _not_run(outcomes: Iterable[CaseResult], read: Collection[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for outcome in outcomes:
        for site in outcome.case.sites:
            if outcome.raised is not None and site not in read:
                found.setdefault(site, outcome.raised)
    return dict(sorted(found.items()))
