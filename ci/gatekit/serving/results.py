"""What a comparison says, as the gate's report reads it."""

from __future__ import annotations

from typing import Literal

import msgspec

from gatekit.records import runs as records
from gatekit.records.checks import Verdict
from overlaykit.cli import Result


class MetricDelta(msgspec.Struct, frozen=True, kw_only=True):
    """Patched to baseline, in percent, geometric mean; more is better for throughput,
    less for times. The interval is 95 %; it is null with a single round.

    P values are Holm's, adjusted: of not being worse by more than the margin, over the
    points; and of being so, over points and metrics. They, and the decision at alpha,
    are null where nothing is decided by this figure: of TTFT, which is advisory. Of all
    points together ``decision`` says no more than whether they are worse at all.
    """

    metric: str
    percent: float
    low: float | None
    high: float | None
    noninferior_p: float | None = None
    harm_p: float | None = None
    decision: Literal["non-inferior", "worse", "not shown"] | None = None


class PointDelta(msgspec.Struct, frozen=True, kw_only=True):
    """A point that was asked for. Its changes are null unless it was compared;
    ``rounds`` counts the pairs of runs that there are."""

    point: str
    outcome: Literal["compared", "not compared", "not run"]
    rounds: int
    throughput: MetricDelta | None = None
    tpot: MetricDelta | None = None
    ttft: MetricDelta | None = None

    @property
    def judged(self) -> tuple[MetricDelta, ...]:
        """The changes that decide; none where it was not compared."""
        return tuple(one for one in (self.throughput, self.tpot) if one)


class ArmRuns(msgspec.Struct, frozen=True, kw_only=True):
    """What an arm's runs were of; ``origin`` is null where they do not agree.
    ``failed_attempts`` were made anew: a server or a client died."""

    arm: str
    runs: int
    failed_attempts: int
    hosts: tuple[str, ...]
    origin: records.Origin | None


class Comparison(Result, frozen=True, kw_only=True):
    """``headline`` is over all points that were compared: throughput, TPOT, and TTFT,
    which is advisory. Empty where none was."""

    verdict: Verdict
    rounds: int
    margin_percent: float
    alpha: float
    reasons: tuple[str, ...]
    arms: tuple[ArmRuns, ...]
    headline: tuple[MetricDelta, ...]
    points: tuple[PointDelta, ...]
    rounds_to_decide: int | None


def percent_text(one: MetricDelta) -> str:
    """As a person reads it."""
    if one.low is None or one.high is None:
        return f"{one.percent:+.2f} %"
    return f"{one.percent:+.2f} % ({one.low:+.2f} to {one.high:+.2f})"
