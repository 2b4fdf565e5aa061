"""A merge gives the same result with a work tree and without one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pytest

from conftest import ROOT, Pins
from lookalikes.runner import prepare
from lookalikes.scenarios import SCENARIOS, Scenario
from overlaykit.core import gitversion
from overlaykit.core.errors import EnvironmentFailure
from overlaykit.planning.landing import DriftedPlan, plan_drifted
from overlaykit.repository.merge import Merged, MergeStore
from overlaykit.sources.releases import release_tree
from overlaykit.trees.tree import DirectoryTree, Tree
from support.other_git import older_than, on_path

Files = Mapping[str, bytes]
LINES = b"".join(b"line %d\n" % number for number in range(60))


def lines(*changes: tuple[int, bytes]) -> bytes:
    changed = LINES
    for number, text in changes:
        changed = changed.replace(b"line %d\n" % number, text)
    return changed


CASES: dict[str, tuple[Files, Files, Files]] = {
    "two places": (
        {"a": LINES}, {"a": lines((5, b"x\n"))}, {"a": lines((40, b"y\n"))},
    ),
    "the same lines": (
        {"a": LINES}, {"a": lines((5, b"x\n"))}, {"a": lines((5, b"y\n"))},
    ),
    "two conflicts and a merge": (
        {"a": LINES},
        {"a": lines((5, b"x\n"), (30, b"x\n"), (50, b"x\n"))},
        {"a": lines((5, b"y\n"), (30, b"y\n"), (20, b"y\n"))},
    ),
    "the same change": (
        {"a": LINES}, {"a": lines((5, b"x\n"))}, {"a": lines((5, b"x\n"))},
    ),
    "nothing to bring": ({"a": LINES}, {"a": lines((5, b"x\n"))}, {"a": LINES}),
    "nothing at all": ({"a": LINES}, {"a": LINES}, {"a": LINES}),
    "renamed": (
        {"a": LINES}, {"d/b": lines((5, b"x\n"))}, {"a": lines((40, b"y\n"))},
    ),
    "renamed, the same lines": (
        {"a": LINES}, {"d/b": lines((5, b"x\n"))}, {"a": lines((5, b"y\n"))},
    ),
    "gone": ({"a": LINES}, {"d/b": b"other\n"}, {"a": lines((40, b"y\n"))}),
    "other line ends": (
        {"a": LINES}, {"a": LINES.replace(b"\n", b"\r\n")}, {"a": lines((5, b"y\n"))},
    ),
    "no line end at the end": (
        {"a": LINES}, {"a": LINES[:-1]}, {"a": lines((58, b"y\n"))},
    ),
    "moved lines": (
        {"a": LINES},
        {"a": lines((7, b"")) + b"line 7\n"},
        {"a": lines((7, b"line seven\n"))},
    ),
    "attributes": (
        {"a": LINES, ".gitattributes": b"* merge=binary text eol=crlf\n"},
        {"a": lines((5, b"x\n")), ".gitattributes": b"* merge=ours text eol=crlf\n"},
        {"a": lines((5, b"y\n")), ".gitattributes": b"* merge=binary text eol=crlf\n"},
    ),
    "git's own words": (
        {"a": LINES}, {"a": lines((5, b"<<<<<<< HEADS\n"))}, {"a": lines((5, b"y\n"))},
    ),
}  # fmt: skip


@dataclass
class Ways:
    """Selects how merges are made from now on."""

    patch: pytest.MonkeyPatch

    def without_work_tree(self) -> None:
        if gitversion.version() < (2, 38):
            pytest.skip("this git has no merge-tree")
        self.patch.setattr(gitversion, "MERGE_TREE", (2, 38))

    def in_work_tree(self) -> None:
        self.patch.setattr(gitversion, "MERGE_TREE", (999,))

    def by(self, program: str) -> None:
        """With another git, in the way that it supports."""
        self.patch.setattr(gitversion, "MERGE_TREE", (2, 38))
        self.patch.setenv("PATH", program)


@pytest.fixture
def ways(monkeypatch: pytest.MonkeyPatch) -> Ways:
    return Ways(monkeypatch)


def merged(name: str) -> Merged:
    with MergeStore() as store:
        return store.merge(*CASES[name])


@pytest.mark.parametrize("name", CASES)
def test_same_result_with_and_without_a_work_tree(name: str, ways: Ways) -> None:
    ways.without_work_tree()
    expected = merged(name)
    ways.in_work_tree()
    assert merged(name) == expected


@pytest.mark.parametrize("name", CASES)
def test_same_result_with_an_older_git(name: str, ways: Ways) -> None:
    ways.without_work_tree()
    expected = merged(name)
    ways.by(on_path(older_than((2, 38))))
    assert merged(name) == expected


def test_the_cases_cover_merges_conflicts_and_renames(ways: Ways) -> None:
    """The cases contain merges, conflicts and renames; otherwise a fallback that does
    nothing would pass."""
    ways.in_work_tree()
    both = merged("two places")
    assert (both.conflicts, both.files) == ((), {"a": lines((5, b"x\n"), (40, b"y\n"))})
    same = merged("the same lines")
    assert same.conflicts == ("a",)
    assert b"<<<<<<< HEAD" not in same.files["a"]
    for sign in (b"<<<<<<< ", b"||||||| ", b"=======", b">>>>>>> "):
        assert same.files["a"].count(b"\n" + sign) == 1
    assert set(merged("renamed").files) == {"d/b"}
    assert merged("gone").conflicts == ("a",)


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: str(scenario.name))
def test_look_alike_scenarios(
    scenario: Scenario, ways: Ways, pins: Pins, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("scenario")
    made = prepare(scenario, pins.overlay["sglang"], pins.tree("sglang"), folder)
    tree = DirectoryTree(made.clone / made.inside)

    def seen() -> DriftedPlan:
        return plan_drifted(made.carried, tree, made.base)

    ways.without_work_tree()
    expected = seen()
    ways.in_work_tree()
    assert seen() == expected


@pytest.mark.parametrize("version", ["0.5.12", "0.5.13", "0.5.15", "0.5.18", "0.5.23"])
def test_releases(version: str, ways: Ways, pins: Pins) -> None:
    """The recorded releases: which hunks apply, which conflict, the resulting files."""
    carried, base = pins.overlay["sglang"], pins.tree("sglang")
    try:
        tree: Tree = release_tree(ROOT, carried.target, version)
    except EnvironmentFailure as error:
        pytest.skip(f"the release is not available: {error}")
    ways.without_work_tree()
    expected = plan_drifted(carried, tree, base)
    ways.in_work_tree()
    assert plan_drifted(carried, tree, base) == expected
