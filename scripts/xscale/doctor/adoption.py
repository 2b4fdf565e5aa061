"""An SGLang tree: whether the series is in it, and the state of every site."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from overlaykit.applying.targets import FoundTarget
from overlaykit.cli import Result
from overlaykit.planning.plan import Standing, locate
from xscale.census import Census, check_adopted, take_census
from xscale.doctor.answers import (
    ABSENT,
    SITES,
    Answer,
    Condition,
    answer,
    condition,
    missing,
)

_NOTES = dict.fromkeys(
    ("S3", "S4"), "saves nothing under graph capture with an alternate stream"
)
_NOT_CHECKED = (
    "the environment checked is this shell's; the server must have the same",
    "the model is not checked: the sites need FP8 (e4m3fn) weights in 128x128 blocks",
)


@dataclass(frozen=True)
class Liveness:
    """One site: its state in the source, whether it would be live, and what it
    lacks."""

    site: str
    state: str
    live: Answer
    lacks: tuple[str, ...]
    note: str = ""


class TreeReport(Result, frozen=True, kw_only=True):
    """The report on an SGLang tree and its sites."""

    standing: str
    consumer: str
    sites: tuple[Liveness, ...]
    conditions: tuple[Condition, ...]


def census_of(found: FoundTarget) -> Census:
    """The census of the package only."""
    # Upstream's own tests and benchmarks may call the kernels in other ways.
    return take_census(found.tree, within=f"{found.carried.target.package_root}/")


def tree_conditions(
    found: FoundTarget | None, census: Census | None
) -> list[Condition]:
    """The conditions that the whole series is applied, to a release whose code is
    known."""
    what = "the series is in the tree"
    if found is None or census is None:
        findings = (missing("SGLang", "--sglang"),)
        return [Condition(what, SITES, Answer.NOT_RUN, f"SGLang {ABSENT}", findings)]
    standing = locate(found.carried, found.tree).standing(found.carried)
    release = f"{found.carried.target.dist.name} {found.carried.target.dist.version}"
    if standing is Standing.PRISTINE:
        change = f"run scripts/apply.py {found.tree.root}"
        return [
            condition(what, SITES, Answer.NO, f"{release} without the series", change)
        ]
    conditions = _adoption(what, census)
    whole = standing is Standing.APPLIED
    conditions.append(
        condition(
            f"the tree is {release}, whose conditions are known",
            SITES,
            answer(whole, known=whole),
            standing.value,
            "run scripts/verify.py --numeric on the tree: it runs the tree's own "
            "functions under any conditions",
        )
    )
    return conditions


def _adoption(what: str, census: Census) -> list[Condition]:
    """One condition per faulty site. A fault in the consumer, or in a call outside the
    catalogue, applies to every site."""
    wrong = check_adopted(census)
    conditions = []
    for site in dict.fromkeys(finding.site for finding in wrong):
        mine = tuple(finding for finding in wrong if finding.site == site)
        sites = (site,) if site in SITES else SITES
        found = "; ".join(finding.what for finding in mine)
        conditions.append(Condition(what, sites, Answer.NO, found, mine))
    faulty = {site for one in conditions for site in one.sites}
    whole = tuple(site for site in SITES if site not in faulty)
    if whole:
        conditions.append(Condition(what, whole, Answer.YES, "according to the census"))
    return conditions


def liveness(
    site: str, census: Census | None, conditions: Iterable[Condition]
) -> Liveness:
    """A site's answer is the worst answer among its conditions."""
    lacking = [c for c in conditions if site in c.sites and c.holds is not Answer.YES]
    answers = {condition.holds for condition in lacking}
    live = next((a for a in (Answer.NO, Answer.NOT_RUN) if a in answers), Answer.YES)
    return Liveness(
        site,
        _state(site, census),
        live,
        tuple(condition.what for condition in lacking),
        _NOTES.get(site, ""),
    )


def _state(site: str, census: Census | None) -> str:
    rows = census.rows if census is not None else ()
    states = dict.fromkeys(row.state.value for row in rows if row.site == site)
    return ", ".join(states) or ABSENT


def report_of(
    found: FoundTarget | None,
    census: Census | None,
    sites: tuple[Liveness, ...],
    conditions: tuple[Condition, ...],
) -> TreeReport:
    """The report on the tree."""
    live = {site.live for site in sites}
    standing = ABSENT
    if found is not None:
        standing = locate(found.carried, found.tree).standing(found.carried).value
    return TreeReport(
        target="sglang",
        tree=found.tree.name if found is not None else ABSENT,
        outcome="live" if live == {Answer.YES} else "not all live",
        notes=_NOT_CHECKED,
        standing=standing,
        consumer=_state("C", census),
        sites=sites,
        conditions=conditions,
    )
