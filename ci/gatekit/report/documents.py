"""The fields of the verbs' ``--json`` documents that the reports read.

Most of the verbs' own result types are not used: they have more fields, and a report
may come from a run whose verbs wrote other ones. A field that is missing here is
missing in the report; nothing is made up for it.
"""

from __future__ import annotations

import msgspec

from gatekit.microbench.results import Claim
from gatekit.records.checks import Check
from gatekit.traces.results import KernelRun


class Hunk(msgspec.Struct, frozen=True):
    patch: str
    path: str
    scope: str
    sites: tuple[str, ...]
    state: str
    line: int | None = None
    shift: int = 0
    detail: str = ""


class Landing(msgspec.Struct, frozen=True):
    """One tree in the results of ``apply``."""

    target: str
    outcome: str
    hunks: tuple[Hunk, ...]
    skipped: tuple[str, ...] = ()


class Built(msgspec.Struct, frozen=True):
    """One image from ``rebuild``, and the digest of its base image."""

    arm: str
    id: str
    base: str


class Site(msgspec.Struct, frozen=True):
    site: str
    role: str
    kernel: str
    state: str
    path: str | None = None
    scope: str | None = None
    line: int | None = None
    detail: str = ""
    live: bool | None = None


class Census(msgspec.Struct, frozen=True):
    """One tree in the results of ``verify``; AITER's tree has no sites."""

    target: str
    outcome: str
    digest: str
    sites: tuple[Site, ...] = ()


class Readings(msgspec.Struct, frozen=True):
    """One site on one route: the number of readings, and how many were right."""

    site: str
    route: str
    readings: int
    bytes: int
    compared: int
    values: int
    gemm: int
    copies_asked: str = ""
    copies_unasked: str = ""
    stand_ins: tuple[str, ...] = ()


class Proof(msgspec.Struct, frozen=True):
    """One tree in the results of ``verify --numeric``."""

    target: str
    outcome: str
    base: str | None
    ran_with: dict[str, str]
    cases: int
    right: int
    numeric: tuple[Readings, ...]


class Arm(msgspec.Struct, frozen=True):
    """The origin of an arm's runs: digests by name, or None if the runs differ."""

    arm: str
    origin: dict[str, str] | None = None


class Run(msgspec.Struct, frozen=True):
    """One run of GSM8K on one arm."""

    questions: int
    answered: int
    correct: int
    truncated: int
    silent: int
    failed: int


class Answers(msgspec.Struct, frozen=True):
    """An arm's runs and their origin."""

    runs: tuple[Run, ...]
    origin: dict[str, str] | None = None


class Score(msgspec.Struct, frozen=True):
    """Fractions between 0 and 1. Differences are patched minus baseline."""

    margin: float
    gained: float
    lost: float
    difference: float
    discordance: float
    lower: float
    upper: float
    level: float
    harm_p: float
    baseline_discordance: float | None = None
    patched_discordance: float | None = None
    further: int | None = None


class Accuracy(msgspec.Struct, frozen=True):
    """The comparison of ``gsm8k compare``."""

    verdict: str
    baseline: Answers
    patched: Answers
    controls: tuple[Check, ...]
    claims: tuple[Check, ...] = ()
    score: Score | None = None
    threshold: Check | None = None


class Compared(msgspec.Struct, frozen=True):
    """The result of ``gsm8k compare`` that holds the comparison."""

    compared: Accuracy
    sentence: str = ""


class Figures(msgspec.Struct, frozen=True):
    kernels: int
    copies: int
    time_ns: int


class Layer(msgspec.Struct, frozen=True):
    layer: int
    per_call: Figures


class Side(msgspec.Struct, frozen=True):
    """One trace. ``typical`` has the kernels of the middle layer's median call, in the
    order in which they ran."""

    method: str
    gpu: str
    layers: tuple[Layer, ...]
    rank: int | None = None
    typical: tuple[KernelRun, ...] = ()

    @property
    def total_ns(self) -> int:
        return sum(layer.per_call.time_ns for layer in self.layers)


class KernelDelta(msgspec.Struct, frozen=True):
    """The change in one kernel, per call of the module."""

    short: str
    kind: str
    change: str
    before: float
    after: float
    before_ns: float
    after_ns: float


class Traced(msgspec.Struct, frozen=True):
    """One trace from ``trace_check``, with the baseline's trace if it was compared."""

    target: str
    tree: str
    verdict: str
    controls: tuple[Check, ...]
    claims: tuple[Check, ...]
    after: Side
    before: Side | None = None
    changes: tuple[KernelDelta, ...] = ()

    @property
    def sides(self) -> tuple[Side, Side] | None:
        """Before and after, if both exist and the traces are valid: figures of an
        invalid trace could be right by accident."""
        if self.verdict == "invalid" or self.before is None:
            return None
        both = (self.before, self.after)
        return both if all(side.total_ns for side in both) else None


class Time(msgspec.Struct, frozen=True):
    """Microseconds per layer, and ratios to the time of other designs."""

    median_us: float
    to_pristine: float
    to_bound: float | None = None


class Row(msgspec.Struct, frozen=True):
    arm: str
    mode: str
    copies: float
    time: Time | None = None


class Cell(msgspec.Struct, frozen=True):
    shape: str
    m: int
    rows: tuple[Row, ...]

    def row(self, arm: str) -> Row | None:
        """The arm's row for graph replay, which is how a decode step runs."""
        found = (row for row in self.rows if (row.arm, row.mode) == (arm, "replay"))
        return next(found, None)


class Chain(msgspec.Struct, frozen=True):
    """The result of ``microbench``."""

    tree: str
    aiter: str
    gemm: str
    ran_with: dict[str, str]
    cells: tuple[Cell, ...]
    claims: tuple[Claim, ...]


class Ratio(msgspec.Struct, frozen=True):
    """Patched relative to baseline, in percent. A single round has no interval. TTFT is
    advisory, so it has no ``decision``."""

    metric: str
    percent: float
    low: float | None = None
    high: float | None = None
    decision: str | None = None


class PointRatios(msgspec.Struct, frozen=True):
    """The ratios at one point. ``outcome`` is "compared", or why there are none."""

    point: str
    outcome: str
    rounds: int = 0
    throughput: Ratio | None = None
    tpot: Ratio | None = None
    ttft: Ratio | None = None


class Serving(msgspec.Struct, frozen=True):
    """The result of ``bench compare``."""

    verdict: str
    rounds: int
    margin_percent: float
    reasons: tuple[str, ...]
    points: tuple[PointRatios, ...]
    headline: tuple[Ratio, ...] = ()
    arms: tuple[Arm, ...] = ()
    rounds_to_decide: int | None = None
