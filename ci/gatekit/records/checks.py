"""A check: what was expected, what was found, and whether it holds."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum


class Verdict(Enum):
    """INVALID: the measurement proves nothing, either way. INCONCLUSIVE: it is valid,
    and not enough to decide."""

    PASS = "pass"
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"
    INVALID = "invalid"


@dataclass(frozen=True)
class Check:
    """A control or a claim. Controls must hold for a measurement to be evidence at all;
    claims are what the measurement then supports or refutes."""

    name: str
    expected: str
    found: str
    holds: bool


def equal(name: str, expected: object, found: object) -> Check:
    return Check(name, str(expected), str(found), expected == found)


def none_of(name: str, what: str, found: Iterable[str]) -> Check:
    """Holds if ``found`` is empty; names the first three entries otherwise."""
    listed = list(found)
    text = f"{len(listed)}: " + "; ".join(listed[:3]) if listed else "none"
    return Check(name, f"no {what}", text, not listed)
