"""The result of a comparison, as the gate's report reads it."""

from __future__ import annotations

from typing import Literal

import msgspec

from gatekit.records import runs as records
from gatekit.records.checks import Verdict
from overlaykit.cli import Result


class MetricDelta(msgspec.Struct, frozen=True, kw_only=True):
    """Patched to baseline, in percent, geometric mean. Larger is better for throughput,
    smaller for times. The 95 % interval is null with a single round.

    P values are adjusted by Holm's method: ``noninferior_p`` over the points,
    ``harm_p`` over points and metrics. They and ``decision`` are null if the figure
    does not decide anything, as TTFT, which is advisory. For all points together,
    ``decision`` only says whether they are worse at all.
    """

    metric: str
    percent: float
    low: float | None
    high: float | None
    noninferior_p: float | None = None
    harm_p: float | None = None
    decision: Literal["non-inferior", "worse", "not shown"] | None = None


class PointDelta(msgspec.Struct, frozen=True, kw_only=True):
    """A requested point. Its deltas are null unless it was compared; ``rounds`` counts
    its pairs of runs."""

    point: str
    outcome: Literal["compared", "not compared", "not run"]
    rounds: int
    throughput: MetricDelta | None = None
    tpot: MetricDelta | None = None
    ttft: MetricDelta | None = None

    @property
    def judged(self) -> tuple[MetricDelta, ...]:
        """The deltas that decide; empty if the point was not compared."""
        return tuple(one for one in (self.throughput, self.tpot) if one)


class ArmRuns(msgspec.Struct, frozen=True, kw_only=True):
    """The runs of an arm. ``origin`` is null if they differ in it. ``failed_attempts``
    were repeated after a server or a client died."""

    arm: str
    runs: int
    failed_attempts: int
    hosts: tuple[str, ...]
    origin: records.Origin | None


class Comparison(Result, frozen=True, kw_only=True):
    """``headline`` covers all compared points: throughput, TPOT, and TTFT, which is
    advisory. Empty if no point was compared."""

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
    """The delta as text."""
    if one.low is None or one.high is None:
        return f"{one.percent:+.2f} %"
    return f"{one.percent:+.2f} % ({one.low:+.2f} to {one.high:+.2f})"
