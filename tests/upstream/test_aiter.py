"""AITER's patch on trees with the layout of later releases."""

from __future__ import annotations

from conftest import Pins
from overlaykit.trees.tree import Tree
from upstream.advice import advise, headline
from upstream.cells import columns
from upstream.facts import facts_of
from upstream.outcomes import Column, Version
from verbs.test_aiter_moves import ALLOCATED, NEW, PARAMETER, moved


def column_of(pins: Pins, tree: Tree) -> Column:
    facts = facts_of(pins.overlay["aiter"], tree, pins.tree("aiter"))
    [column] = columns(pins.overlay["aiter"], [(Version("it", "it"), facts)])
    return column


def test_the_pin(pins: Pins) -> None:
    column = column_of(pins, pins.tree("aiter"))
    assert [cell.outcome.value for cell in column.cells] == ["clean", "clean"]
    assert headline(advise(column)) == "apply as is"


def test_a_moved_file(pins: Pins) -> None:
    column = column_of(pins, moved(pins))
    assert {cell.outcome.value for cell in column.cells} == {"renamed"}
    assert {cell.moved_to for cell in column.cells} == {NEW}
    assert column.holds
    assert headline(advise(column)) == "rebase 0001"


def test_a_different_implementation(pins: Pins) -> None:
    column = column_of(pins, moved(pins, PARAMETER, ALLOCATED))
    assert {cell.outcome.value for cell in column.cells} == {"superseded"}
    assert headline(advise(column)) == "retire 0001"


def test_an_ignored_parameter_is_not_adoption(pins: Pins) -> None:
    column = column_of(pins, moved(pins, PARAMETER))
    assert {cell.outcome.value for cell in column.cells} == {"unsure"}


def test_gone(pins: Pins) -> None:
    name = "def fused_flatten_fp8_group_quant("
    column = column_of(pins, moved(pins, (name, "def another_name(")))
    assert {cell.outcome.value for cell in column.cells} == {"gone"}
    assert headline(advise(column)) == "re-derive 0001"
