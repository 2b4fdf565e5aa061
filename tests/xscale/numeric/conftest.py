"""Fixtures that run the numeric proof on any tree."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pytest

from conftest import Pins
from overlaykit.trees.tree import Tree
from xscale.numeric import Case, CaseResult, run

Prove = Callable[..., tuple[CaseResult, ...]]


@pytest.fixture(scope="session")
def prove(pins: Pins, kernels: None) -> Prove:
    """Judges a tree, by default with patched AITER and against pristine SGLang."""
    pristine, patched = pins.tree("sglang"), pins.patched("aiter")

    def prove(
        tree: Tree,
        cases: Iterable[Case],
        aiter: Tree = patched,
        compare: bool = True,
    ) -> tuple[CaseResult, ...]:
        return run(tree, aiter, cases, pristine=pristine if compare else None)

    return prove
