"""The figures of the evidence page: what a comparison can show, and error rates."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from gatekit.gsm8k.cases import Case, published
from gatekit.stats.decision import Rule
from gatekit.stats.power import Detectable, chances, detectable
from gatekit.stats.simulation import several_runs, type_1_one_run
from overlaykit.cli import Result

DRAWS = 20_000
_DRAWS_RUNS = 2_000
_SEED = 6


class CalibrationRow(msgspec.Struct, frozen=True, kw_only=True):
    """How often the interval clears the margin although the true drop equals it,
    simulated, and summed if possible; and how often equal arms FAIL."""

    questions: int
    runs: int
    discordance: float
    margin: float
    draws: int
    type_1_drawn: float
    type_1_summed: float | None
    false_fails: float


class Predictions(Result, frozen=True, kw_only=True):
    rows: tuple[Detectable, ...]
    calibration: tuple[CalibrationRow, ...] = ()
    cases: tuple[Case, ...] = ()


def predict(
    questions: Sequence[int],
    discordances: Sequence[float],
    margins: Sequence[float],
    calibrate: bool,
    progress: Callable[[str, int, int], None],
) -> Predictions:
    cells = [
        (n, psi, margin)
        for n in questions
        for psi in discordances
        for margin in margins
    ]
    rows = []
    for done, (n, psi, margin) in enumerate(cells, 1):
        rows.append(detectable(n, psi, Rule(margin)))
        progress("power", done, len(cells))
    drawn: list[CalibrationRow] = []
    if calibrate:
        cells = [cell for cell in cells if cell[1] >= cell[2]]
        several = [(n, runs, margin) for n, margin in _SEVERAL for runs in (1, 2, 4)]
        total = len(cells) + len(several)
        for cell in cells:
            drawn.append(_one_run(*cell))
            progress("calibration", len(drawn), total)
        for n, runs, margin in several:
            drawn.append(_several(n, runs, margin))
            progress("calibration", len(drawn), total)
    return Predictions(
        target="gsm8k",
        tree="",
        outcome="computed",
        rows=tuple(rows),
        calibration=tuple(drawn),
        cases=tuple(published()) if calibrate else (),
    )


_SEVERAL = ((1319, 0.015), (3957, 0.010))
_UNSTEADY = 0.06


def _one_run(n: int, discordance: float, margin: float) -> CalibrationRow:
    rule = Rule(margin)
    return CalibrationRow(
        questions=n,
        runs=1,
        discordance=discordance,
        margin=margin,
        draws=DRAWS,
        type_1_drawn=type_1_one_run(n, discordance, rule, DRAWS, _SEED),
        type_1_summed=chances(n, discordance, -margin, rule).non_inferior,
        false_fails=chances(n, discordance, 0.0, rule).fails,
    )


def _several(n: int, runs: int, margin: float) -> CalibrationRow:
    """Simulate each question: a share is unsteady, a share of the rest is broken."""
    rule = Rule(margin)
    broken = margin / (1 - _UNSTEADY)
    _, clears = several_runs(n, runs, _UNSTEADY, broken, rule, _DRAWS_RUNS, _SEED)
    fails, _ = several_runs(n, runs, _UNSTEADY, 0.0, rule, _DRAWS_RUNS, _SEED)
    return CalibrationRow(
        questions=n,
        runs=runs,
        # Two random answers differ half of the time.
        discordance=_UNSTEADY / 2 + margin,
        margin=margin,
        draws=_DRAWS_RUNS,
        type_1_drawn=clears,
        type_1_summed=None,
        false_fails=fails,
    )
