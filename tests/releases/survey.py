"""What one unpatched release does: its census, and its functions run on real kernels.

A site that raises in every case that was to read it says nothing of its bytes: the
proof's doubles may not fit that release. It is reported as not run, with what it
raised, and never counted as wrong.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum

from overlaykit.core.errors import Finding
from overlaykit.trees.tree import Tree
from xscale.census import SiteRow, check_adopted, take_census
from xscale.numeric import CaseResult, Platform, SiteSummary, findings_of, summarize
from xscale.sites import PRODUCERS

PACKAGE = "python/sglang/"


class Verdict(Enum):
    """Of one case, the worst that holds."""

    RIGHT = "right"
    COSTS = "right, with a finding"
    WRONG = "wrong"
    RAISES = "raises"
    NOT_RUN = "not run"


@dataclass(frozen=True)
class Surveyed:
    """``dangers`` are mixtures that the census warns of. ``live`` are the sites whose
    scale a fused kernel made when they were run as on gfx95 with ROCm 7.2. ``not_run``
    gives per site what it raises; ``missing`` what kept the whole proof from running.
    """

    version: str
    census: tuple[SiteRow, ...]
    dangers: tuple[Finding, ...]
    verdicts: dict[str, int]
    live: tuple[str, ...]
    sites: tuple[SiteSummary, ...]
    findings: tuple[Finding, ...]
    not_run: dict[str, str]
    missing: tuple[str, ...] = ()

    def wrong(self) -> set[tuple[str, str]]:
        """The sites and routes on which some reading is not what a kernel computed."""
        return {(s.site, s.route) for s in self.sites if s.bytes < s.readings}


def survey(
    version: str,
    tree: Tree,
    outcomes: Sequence[CaseResult],
    missing: Iterable[str] = (),
) -> Surveyed:
    """Put together what the census sees and what the cases came to."""
    census = take_census(tree, within=PACKAGE)
    read = {reading.site for outcome in outcomes for reading in outcome.readings}
    verdicts = Counter(verdict(outcome, read) for outcome in outcomes)
    return Surveyed(
        version,
        census.rows,
        tuple(f for f in check_adopted(census) if "dangerous" in f.what),
        {v.value: verdicts[v] for v in Verdict} if outcomes else {},
        _live(outcomes),
        summarize(outcomes),
        tuple(f for f in findings_of(outcomes) if f.site in read),
        _not_run(outcomes, read),
        tuple(missing),
    )


def verdict(outcome: CaseResult, read: Collection[str]) -> Verdict:
    """``read`` are the sites that were read in some case of this release."""
    if outcome.raised is not None:
        some = any(site in read for site in outcome.case.sites)
        return Verdict.RAISES if some else Verdict.NOT_RUN
    if not all(reading.bytes for reading in outcome.readings):
        return Verdict.WRONG
    return Verdict.RIGHT if outcome.ok else Verdict.COSTS


def _live(outcomes: Iterable[CaseResult]) -> tuple[str, ...]:
    return tuple(
        sorted(
            {
                reading.site
                for outcome in outcomes
                for reading in outcome.readings
                if outcome.case.platform is Platform.GFX95
                and reading.producer in PRODUCERS
            }
        )
    )


def _not_run(outcomes: Iterable[CaseResult], read: Collection[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for outcome in outcomes:
        for site in outcome.case.sites:
            if outcome.raised is not None and site not in read:
                found.setdefault(site, outcome.raised)
    return dict(sorted(found.items()))
