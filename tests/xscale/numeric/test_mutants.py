"""Every broken tree is caught by the right check, with its sites named.

The page is compared with the run; to write it again:

    WRITE_EVIDENCE=1 .venv/bin/python -m pytest tests/xscale/numeric/test_mutants.py
"""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from conftest import ROOT, Pins
from xscale.numeric import Case, CaseResult

from .meddlers import MEDDLERS
from .module_mutants import MODULE_MUTANTS
from .mutants import MUTANTS, Catcher, Mutant, catches, mutated

pytestmark = pytest.mark.slow("every broken tree is run through the numeric proof")

Prove = Callable[..., tuple[CaseResult, ...]]
ALL = (*MUTANTS, *MEDDLERS, *MODULE_MUTANTS)
Caught = dict[str, dict[Catcher, frozenset[str]]]

PAGE = ROOT / "docs" / "evidence" / "mutants.md"
BEGIN, END = "<!-- the run: begin -->\n", "<!-- the run: end -->\n"


@pytest.fixture(scope="module")
def caught(pins: Pins, prove: Prove) -> Caught:
    """The result of every mutant, by name."""
    tree = pins.patched("sglang")

    def run(mutant: Mutant) -> dict[Catcher, frozenset[str]]:
        broken = mutated(tree, mutant.edits)
        return catches(broken, prove(broken, mutant.cases))

    return {mutant.name: run(mutant) for mutant in ALL}


def test_names_are_unique() -> None:
    assert len({mutant.name for mutant in ALL}) == len(ALL) >= 15


@pytest.mark.parametrize("mutant", ALL, ids=lambda mutant: mutant.name)
def test_caught(mutant: Mutant, caught: Caught) -> None:
    """Each expected catcher names exactly its sites."""
    found = caught[mutant.name]
    assert mutant.caught <= found.keys()
    for catcher in mutant.caught:
        if catcher is Catcher.CENSUS and mutant.sites < found[catcher]:
            continue  # It has read the whole tree, not these cases.
        assert found[catcher] == mutant.sites, catcher


def test_no_survivors(caught: Caught) -> None:
    assert [name for name, found in caught.items() if not found] == []


def test_the_patched_pin_passes_the_same_cases(pins: Pins, prove: Prove) -> None:
    """Otherwise a judge that rejects everything would catch all mutants."""
    cases: dict[Case, None] = {}
    for mutant in ALL:
        cases |= dict.fromkeys(mutant.cases)
    tree = pins.patched("sglang")
    assert catches(tree, prove(tree, cases)) == {}


def test_the_page_matches_this_run(caught: Caught) -> None:
    before, _, rest = PAGE.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    page = f"{before}{BEGIN}{_table(caught)}{END}{after}"
    if os.environ.get("WRITE_EVIDENCE"):
        PAGE.write_text(page)
    assert PAGE.read_text() == page


def _table(caught: Caught) -> str:
    rows = ["| Mutant | What is broken | Caught by, naming |", "|---|---|---|"]
    for mutant in ALL:
        by = "; ".join(
            f"{catcher.value}: {', '.join(sorted(sites))}"
            for catcher, sites in caught[mutant.name].items()
        )
        rows.append(f"| {mutant.name} | {mutant.broken} | {by or '**SURVIVED**'} |")
    total = f"{len(ALL)} mutants, {sum(not c for c in caught.values())} survivors."
    return "\n".join([*rows, "", total, ""])
