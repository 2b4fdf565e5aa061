"""Simulate how often the comparison is wrong, and how often it decides.

``PYTHONPATH=scripts:ci python -m gatekit.serving.simulation`` writes the evidence page.
The runs are simulated; the statistics are the comparison's own. The logarithm of a
figure is its true value plus an error of a given spread. All runs of an arm in a round
share half of its variance, as runs of one server start may. The errors of throughput
and TPOT are strongly correlated.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import msgspec
import numpy as np

from gatekit.serving.ratios import CODES, Array, interval, judge
from gatekit.stats.decision import Decision
from overlaykit.core.files import write_whole

ROOT = Path(__file__).resolve().parents[3]
PAGE = ROOT / "docs" / "evidence" / "serving-statistics.md"
COMMAND = "PYTHONPATH=scripts:ci python -m gatekit.serving.simulation"
POINTS = 10
METRICS = 2
NOISES = (0.01, 0.02, 0.05)
ROUNDS = (4, 6, 8, 12, 24, 48)
LOOKS = (4, 6, 8, 12)
MARGIN, ALPHA = 0.02, 0.05
SHARED, CORRELATION = 0.5, 0.9
SIMULATIONS = 4000
SEED = 20476

# The true change at each of the ten points, in percent; equal in both metrics.
TRUTHS = {
    "at the margin at one point, +30 % elsewhere": [-100 * MARGIN] + [30.0] * 9,
    "at the margin at all points": [-100 * MARGIN] * POINTS,
    "no difference": [0.0] * POINTS,
    "+3 % at all points": [3.0] * POINTS,
    "-3 % at all points": [-3.0] * POINTS,
    "-10 % at one point, +3 % elsewhere": [-10.0] + [3.0] * 9,
}


class Rates(msgspec.Struct, frozen=True):
    """Shares of simulated comparisons.

    ``any_noninferior``: comparisons that call a point non-inferior in throughput
    although it is at or below the margin. ``gain``: comparisons whose 95 % interval of
    the headline throughput is above 0.
    """

    truth: str
    noise: float
    rounds: int
    passes: float
    fails: float
    any_noninferior: float | None
    gain: float


class Peeking(msgspec.Struct, frozen=True):
    """The share that passes at one of several looks, with one point at the margin."""

    noise: float
    looks: tuple[int, ...]
    passes: float


class Evidence(msgspec.Struct, frozen=True):
    command: str
    simulations: int
    seed: int
    margin: float
    alpha: float
    shared: float
    correlation: float
    rates: tuple[Rates, ...]
    peeking: tuple[Peeking, ...]


def draw(
    rng: np.random.Generator,
    truth: Array,
    noise: float,
    rounds: int,
    simulations: int,
    shared: float = SHARED,
) -> Array:
    """Log-ratios of simulated runs, with axes (simulation, metric, point, round)."""
    points = len(truth)

    def errors() -> Array:
        """Errors of one arm's runs, with axes (simulation, 1, point, round)."""
        own = rng.standard_normal((simulations, 1, points, rounds))
        start = rng.standard_normal((simulations, 1, 1, rounds))
        return noise * (np.sqrt(1 - shared) * own + np.sqrt(shared) * start)

    common = errors() - errors()
    other = errors() - errors()
    second = CORRELATION * common + np.sqrt(1 - CORRELATION**2) * other
    both = np.concatenate([common, second], axis=1)
    return both + np.log1p(np.asarray(truth) / 100)[:, None]


def rates(
    name: str, noise: float, rounds: int, simulations: int = SIMULATIONS
) -> Rates:
    """One cell of the table; deterministic."""
    truth = np.array(TRUTHS[name])
    cell = [SEED, list(TRUTHS).index(name), round(1000 * noise), rounds]
    sample = draw(np.random.default_rng(cell), truth, noise, rounds, simulations)
    judged = judge(sample, MARGIN, ALPHA)
    inferior = truth <= -100 * MARGIN
    wrong = (judged.noninferior[:, 0, inferior] <= ALPHA).any(axis=-1)
    headline = interval(sample[:, 0].mean(axis=-2), 0.95)[0]
    return Rates(
        truth=name,
        noise=noise,
        rounds=rounds,
        passes=float((judged.codes == CODES.index(Decision.PASS)).mean()),
        fails=float((judged.codes == CODES.index(Decision.FAIL)).mean()),
        any_noninferior=float(wrong.mean()) if inferior.any() else None,
        gain=float((headline > 0).mean()),
    )


def peek(noise: float, simulations: int = SIMULATIONS) -> Peeking:
    """Add rounds until it passes, or until the last look."""
    name = next(iter(TRUTHS))
    rng = np.random.default_rng([SEED, round(1000 * noise)])
    sample = draw(rng, np.array(TRUTHS[name]), noise, LOOKS[-1], simulations)
    passed: Array = np.zeros(simulations, dtype=bool)
    for rounds in LOOKS:
        codes = judge(sample[..., :rounds], MARGIN, ALPHA).codes
        passed |= codes == CODES.index(Decision.PASS)
    return Peeking(noise, LOOKS, float(passed.mean()))


def main() -> None:
    started = time.monotonic()
    found = []
    for name in TRUTHS:
        print(f"{name}", file=sys.stderr, flush=True)
        found += [rates(name, noise, n) for noise in NOISES for n in ROUNDS]
    evidence = Evidence(
        command=COMMAND,
        simulations=SIMULATIONS,
        seed=SEED,
        margin=MARGIN,
        alpha=ALPHA,
        shared=SHARED,
        correlation=CORRELATION,
        rates=tuple(found),
        peeking=tuple(peek(noise) for noise in NOISES),
    )
    data = msgspec.json.format(msgspec.json.encode(evidence))
    write_whole(PAGE.with_suffix(".json"), data + b"\n")
    write_whole(PAGE, page(evidence))
    print(f"{time.monotonic() - started:.0f} s", file=sys.stderr)


def page(evidence: Evidence) -> str:
    """The evidence page, as Markdown."""
    lines = [
        "# The serving benchmark's statistics",
        "",
        "How often `ci/bench.py compare` is wrong, and how often it decides, by "
        "simulation. No",
        "server was run for this page. Made by",
        "",
        f"    {evidence.command}",
        "",
        f"{evidence.simulations:,} simulated comparisons per cell, "
        f"seed {evidence.seed}, ten points, "
        f"margin {100 * evidence.margin:g} %, alpha {evidence.alpha:g}.",
        "The comparison's own functions decide. Noise is the standard deviation of a "
        "run's",
        "log-throughput between runs of one build. The runs of an arm in a round share",
        f"{100 * evidence.shared:g} % of its variance, and the errors of TPOT and "
        f"throughput have correlation {evidence.correlation:g}.",
        "The standard error of a rate is at most 0.008; near 0.05 it is 0.003.",
        "",
        "PASS: every point is shown not to be worse by more than the margin, in both "
        "metrics",
        "(Holm over the points). FAIL: a point is shown to be worse by more than the "
        "margin",
        "(Holm over points and metrics), or the mean over all points to be worse at "
        "all.",
        "Otherwise INCONCLUSIVE. The rates are for a number of rounds fixed in "
        "advance; the",
        "last section shows the effect of adding rounds until the comparison passes.",
        "",
        "The first table shows the type I error of non-inferiority, which must stay "
        "near or",
        "below alpha: one point is exactly at the margin and is called non-inferior. "
        "In the",
        "second, all ten points are at the margin, and any of them counts.",
        "",
    ]
    for name in TRUTHS:
        cells = [one for one in evidence.rates if one.truth == name]
        lines += [f"## {name}", ""]
        wrong = cells[0].any_noninferior is not None
        head = ["noise", "rounds", "PASS", "FAIL", "gain shown"]
        if wrong:
            head.append("a point at or below the margin called non-inferior")
        lines += ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
        for one in cells:
            row = [
                f"{100 * one.noise:g} %",
                str(one.rounds),
                *(f"{rate:.3f}" for rate in (one.passes, one.fails, one.gain)),
            ]
            if one.any_noninferior is not None:
                row.append(f"{one.any_noninferior:.3f}")
            lines.append("| " + " | ".join(row) + " |")
        lines.append("")
    looks = ", ".join(map(str, evidence.peeking[0].looks))
    lines += [
        f"## {next(iter(TRUTHS))}: rounds added until it passes",
        "",
        f"Compared after {looks} rounds; the first pass counts. The comparison does "
        "not",
        "correct for this: fix the number of rounds in advance, or use this table to "
        "read a",
        "pass after added rounds.",
        "",
        "| noise | PASS at any look |",
        "|---|---|",
        *(f"| {100 * one.noise:g} % | {one.passes:.3f} |" for one in evidence.peeking),
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
