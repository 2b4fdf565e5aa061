"""Conditions that sites need, and whether they hold. The third answer, "not run", means
that this machine cannot determine it; it never counts as yes."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum

from overlaykit.core.errors import Finding
from xscale.sites import CATALOGUE, Role

ABSENT = "not found"
SITES = tuple(site.id for site in CATALOGUE if site.role is Role.PRODUCER)


class Answer(Enum):
    """Whether a condition holds; NOT_RUN if this machine cannot determine it."""

    YES = "yes"
    NO = "no"
    NOT_RUN = "not run"


@dataclass(frozen=True)
class Condition:
    """A requirement for sites to be live. ``findings`` say what to change."""

    what: str
    sites: tuple[str, ...]
    holds: Answer
    found: str
    findings: tuple[Finding, ...] = field(default=())


def condition(
    what: str, sites: Iterable[str], holds: Answer, found: str, change: str
) -> Condition:
    """Make a condition; if it does not hold, with one finding for all its sites."""
    sites = tuple(sites)
    if holds is Answer.YES:
        return Condition(what, sites, holds, found)
    state = "cannot be determined here" if holds is Answer.NOT_RUN else "does not hold"
    finding = Finding(
        f"{what}: {state}",
        site=" ".join(sites),
        expected=what,
        found=found,
        next_step=change,
    )
    return Condition(what, sites, holds, found, (finding,))


def answer(right: bool, known: bool = True) -> Answer:
    """Yes or no; NOT_RUN unless it is ``known``."""
    if not known:
        return Answer.NOT_RUN
    return Answer.YES if right else Answer.NO


def missing(what: str, option: str) -> Finding:
    """The finding for a package that was not found."""
    return Finding(
        f"{what} {ABSENT}",
        found=f"this Python, {sys.executable}, cannot import it",
        next_step=f"run this with the Python that serves, or give {option} PATH",
    )
