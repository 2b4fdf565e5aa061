"""What sites need, whether it holds, and for which of them: a third answer is that
this machine cannot tell, which never counts as yes."""

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
    """Whether something holds; NOT_RUN where this machine cannot tell."""

    YES = "yes"
    NO = "no"
    NOT_RUN = "not run"


@dataclass(frozen=True)
class Condition:
    """One thing that sites need to be live. ``findings`` say what to change."""

    what: str
    sites: tuple[str, ...]
    holds: Answer
    found: str
    findings: tuple[Finding, ...] = field(default=())


def condition(
    what: str, sites: Iterable[str], holds: Answer, found: str, change: str
) -> Condition:
    """With one finding, for all its sites together, where it does not hold."""
    sites = tuple(sites)
    if holds is Answer.YES:
        return Condition(what, sites, holds, found)
    state = "cannot be told here" if holds is Answer.NOT_RUN else "does not hold"
    finding = Finding(
        f"{what}: {state}",
        site=" ".join(sites),
        expected=what,
        found=found,
        next_step=change,
    )
    return Condition(what, sites, holds, found, (finding,))


def told(right: bool, known: bool = True) -> Answer:
    """A yes or a no, where it is ``known`` at all."""
    if not known:
        return Answer.NOT_RUN
    return Answer.YES if right else Answer.NO


def absent(what: str, option: str) -> Finding:
    """Of a package that is not there to be examined."""
    return Finding(
        f"{what} {ABSENT}",
        found=f"this Python, {sys.executable}, would import none",
        next_step=f"run this with the Python that serves, or give {option} PATH",
    )
