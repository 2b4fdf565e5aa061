"""Random drifts that make twins: the engine refuses, or it is right.

What is right is known from how each drift was made (:mod:`lookalikes.truth`).
"""

from __future__ import annotations

from collections import Counter

import pytest

from conftest import Pins
from lookalikes.drifting import Case, Drift
from lookalikes.truth import Answer, Correctness, check_answer
from lookalikes.twins import drifted, made_case, real_cases
from overlaykit.planning.plan import State

_MADE, _REAL = 90, 26


@pytest.fixture(scope="module")
def real(pins: Pins) -> list[Case]:
    return real_cases(pins.overlay["sglang"], pins.tree("sglang"))


def _story(drift: Drift, answer: Answer) -> str:
    done = ", ".join(drift.done)
    return f"{drift.case.name}: {done}: {answer.state.value}: {answer.detail}"


def _wrong(drifts: list[Drift]) -> list[str]:
    """The wrong answers. Also checks that the drifts allow wrong answers."""
    stories, seen = [], Counter[Correctness]()
    for drift in drifts:
        answer = check_answer(drift)
        seen[answer.verdict] += 1
        if answer.verdict is Correctness.WRONG:
            stories.append(_story(drift, answer))
    assert (
        seen[Correctness.RIGHT]
        and seen[Correctness.REFUSED] > seen[Correctness.INDISTINGUISHABLE]
    )
    return stories


def test_small_files(pins: Pins) -> None:
    cases = (made_case(pins.overlay["sglang"], seed) for seed in range(_MADE))
    assert _wrong([drifted(case, n) for n, case in enumerate(cases)]) == []


def test_the_hunks_of_the_series(real: list[Case]) -> None:
    drifts = [drifted(real[n % len(real)], n) for n in range(_REAL)]
    assert _wrong(drifts) == []


def test_without_twins_nothing_is_ambiguous(pins: Pins, real: list[Case]) -> None:
    """Everyday upstream changes are never ambiguous."""
    cases = [made_case(pins.overlay["sglang"], seed) for seed in range(_MADE // 3)]
    ambiguous = []
    for number, case in enumerate([*cases, *real]):
        drift = drifted(case, number, twins=False)
        answer = check_answer(drift)
        assert answer.verdict is not Correctness.WRONG, _story(drift, answer)
        if answer.state is State.AMBIGUOUS:
            ambiguous.append(_story(drift, answer))
    assert ambiguous == []
