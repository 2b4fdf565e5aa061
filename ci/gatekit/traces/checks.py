"""What a trace's checks come to together."""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum

from gatekit.records.checks import Check


class Verdict(Enum):
    """What a trace shows. Invalid means that it shows nothing, either way."""

    PASS = "pass"
    FAIL = "fail"
    INVALID = "invalid"


def judge(controls: Iterable[Check], claims: Iterable[Check]) -> Verdict:
    """Without a claim there is nothing to pass."""
    claims = tuple(claims)
    if not claims or not all(control.holds for control in controls):
        return Verdict.INVALID
    return Verdict.PASS if all(claim.holds for claim in claims) else Verdict.FAIL
