"""``--first-bad`` on histories of real releases, a rename and a split file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import pytest

from conftest import Pins
from overlaykit.core.errors import InputError
from overlaykit.planning.plan import State
from upstream.facts import Facts
from upstream.first_bad import first_bad, row_named

from .conftest import FP8_UTILS, History, bare, facts_of_release
from .histories import needed

METHODS = "python/sglang/srt/models/deepseek_common/attention_forward_methods"
COMMUNICATOR = "python/sglang/srt/layers/communicator.py"
PATCHES = [
    "0001-fp8-consumer",
    "0002-communicator-producers",
    "0003-forward-mla-producers",
    "0004-forward-mha-producers",
    "0005-o-proj-flatten",
]
RMS = [f"S{number}" for number in range(1, 8)]


@pytest.mark.slow("bisects all releases")
@pytest.mark.parametrize(
    ("rows", "good", "bad", "found"),
    [
        (PATCHES, "0.5.11", "0.5.23", "0.5.13"),
        ([*RMS, "C"], "0.5.11", "0.5.23", "0.5.13"),
        (["S8"], "0.5.11", "0.5.23", "0.5.14"),
        (["S1", "S5", "S8", "C"], "0.5.14", "0.5.17", "0.5.15"),
        ([*RMS, "S8"], "0.5.15", "0.5.20", "0.5.18"),
        (["S1", "S2"], "0.5.15", "0.5.21", "0.5.18"),
        (["C"], "0.5.10.post1", "0.5.12", "0.5.11"),
    ],
    ids=lambda value: value if isinstance(value, str) else "+".join(value)[:24],
)
def test_bisection_finds_the_release_that_changed_a_row(
    history: History,
    rows: list[str],
    good: str,
    bad: str,
    found: str,
    request: pytest.FixtureRequest,
) -> None:
    """And not the noise commits, which shift lines and touch other files."""
    if found == "0.5.18":
        # The sites are dead from there on, which only running them shows.
        request.getfixturevalue("kernels")
    ends = history.commits[good], history.commits[bad]
    for row in rows:
        change = first_bad(history.clone, row, *ends, history.look)
        assert change.commit == history.commits[found], row
        assert change.subject == found
        assert change.date.startswith("2023-11-")
        assert change.before != change.after
        assert 0 < len(change.blame) <= 25
        # Bisection needs no more.
        assert change.looked_at <= 9


def test_the_history_gives_the_same_census_as_the_releases(
    history: History, pins: Pins, releases: list[str]
) -> None:
    """The history contains a part of each release; its sites must be the same."""

    def sites_of(facts: Facts) -> set[tuple[object, ...]]:
        return {(row.site, row.state, row.path, row.line) for row in facts.rows}

    for version in ("0.5.11", "0.5.13", "0.5.18", releases[-1]):
        part = history.look(history.commits[version])
        assert sites_of(part) == sites_of(facts_of_release(pins, version)), version


def test_blame_shows_the_lines(history: History) -> None:
    ends = history.commits["0.5.11"], history.commits["0.5.23"]
    change = first_bad(history.clone, "S7", *ends, history.look)
    assert f"+++ b/{METHODS}/forward_mha.py" in change.blame
    added = [line for line in change.blame if line.startswith("+ ")]
    assert any("transpose_scale=" in line for line in added), change.blame


def test_nothing_changes(history: History) -> None:
    ends = history.commits["0.5.15"], history.commits["0.5.17"]
    change = first_bad(history.clone, "C", *ends, history.look)
    assert change.commit is None
    assert change.looked_at == 2


def test_a_file_renamed(pins: Pins, tmp_path: Path) -> None:
    files = needed(pins.tree("sglang"))
    there = "python/sglang/srt/layers/communication/communicator.py"
    renamed = dict(files)
    renamed[there] = renamed.pop(COMMUNICATOR)
    noise = files | {"NOTES": b"nothing\n"}
    more = renamed | {"NOTES": b"more\n"}
    steps = [("pin", files), ("noise", noise), ("rename", renamed), ("more", more)]
    made = bare(tmp_path / "renamed.git", pins, steps)
    ends = made.commits["pin"], made.commits["more"]
    patch = first_bad(made.clone, PATCHES[1], *ends, made.look)
    assert (patch.subject, patch.before) == ("rename", "clean")
    assert patch.after == "renamed, moved to communicator.py"
    assert f"rename to {there}" in patch.blame
    site = first_bad(made.clone, "S1", *ends, made.look)
    assert site.subject == "rename"
    assert there in site.after
    # The other patches do not change.
    assert first_bad(made.clone, PATCHES[0], *ends, made.look).commit is None


def test_a_file_split(pins: Pins, tmp_path: Path) -> None:
    """The class moves to another file, as in 0.5.18; the old file stays."""
    files = needed(pins.tree("sglang"))
    old, new = f"{METHODS}/forward_mha.py", f"{METHODS}/forward_mha_amd.py"
    source = files[old]
    start = source.index(b"class DeepseekMHAForwardMixin")
    head, body = source[:start], source[start:]
    kept = head + b"from .forward_mha_amd import DeepseekMHAForwardMixin  # noqa\n"
    split = files | {old: kept, new: head + body}
    steps = [
        ("pin", files),
        ("noise", files | {"NOTES": b"nothing\n"}),
        ("split", split),
        ("more", split | {"NOTES": b"more\n"}),
    ]
    made = bare(tmp_path / "split.git", pins, steps)
    ends = made.commits["pin"], made.commits["more"]
    for row in (PATCHES[3], "S5", "S6", "S7"):
        change = first_bad(made.clone, row, *ends, made.look)
        assert change.subject == "split", row
        assert "forward_mha_amd.py" in change.after, row
    assert first_bad(made.clone, "S3", *ends, made.look).commit is None


def test_a_row_that_is_not_good_at_the_start(history: History) -> None:
    ends = history.commits["0.5.13"], history.commits["0.5.14"]
    with pytest.raises(InputError, match="it is superseded"):
        first_bad(history.clone, PATCHES[0], *ends, history.look)


@pytest.mark.parametrize("name", ["S9", "0006", "", "fp8"])
def test_an_unknown_row(pins: Pins, name: str) -> None:
    with pytest.raises(InputError, match="no patch or site"):
        row_named(pins.overlay["sglang"], name)


@pytest.mark.parametrize("name", ["0003", PATCHES[2], f"{PATCHES[2]}.patch"])
def test_rows_by_name(pins: Pins, name: str) -> None:
    assert row_named(pins.overlay["sglang"], name) == PATCHES[2]
    assert row_named(pins.overlay["sglang"], "S3") == "S3"


def _steps(pins: Pins, touching: set[int]) -> list[tuple[str, dict[str, bytes]]]:
    """Twelve commits, of which these touch the consumer's file."""
    files = needed(pins.tree("sglang"))
    found = []
    for number in range(12):
        if number in touching:
            files |= {FP8_UTILS: b"# A line more.\n" + files[FP8_UTILS]}
        found.append((f"step {number}", files | {"NOTES": b"%d\n" % number}))
    return found


@pytest.mark.parametrize("wrong", [1, 2, 3, 6, 8, 9, 10, 11])
def test_a_commit_that_touches_no_file_of_the_row(
    pins: Pins, tmp_path: Path, wrong: int
) -> None:
    """Commits that do touch one are looked at first, and are not believed."""
    made = bare(tmp_path / "other.git", pins, _steps(pins, {3, 9}))
    commits = [*made.commits.values()]
    good = made.look(commits[0], run=False)
    bad = replace(
        good, hunks=tuple(replace(h, state=State.CONFLICT) for h in good.hunks)
    )

    def look(commit: str, run: bool) -> Facts:
        return bad if commits.index(commit) >= wrong else good

    change = first_bad(made.clone, PATCHES[0], commits[0], commits[-1], look)
    assert (change.commit, change.parent) == (commits[wrong], commits[wrong - 1])


def test_a_patch_is_searched_without_running_what_is_between(
    pins: Pins, tmp_path: Path
) -> None:
    """Only the two commits that the result names are run."""
    steps = _steps(pins, set(range(12)))
    for number in range(7, 12):
        subject, files = steps[number]
        data = files[FP8_UTILS].replace(b"aiter_w8a8_block", b"other_w8a8_block")
        steps[number] = subject, files | {FP8_UTILS: data}
    made = bare(tmp_path / "between.git", pins, steps)
    commits = [*made.commits.values()]
    asked: list[tuple[str, bool]] = []

    def look(commit: str, run: bool) -> Facts:
        asked.append((commit, run))
        return made.look(commit, run=False)

    change = first_bad(made.clone, PATCHES[0], commits[0], commits[-1], look)
    assert change.subject == "step 7"
    assert {commit for commit, run in asked if run} == {commits[6], commits[7]}
    assert len(asked) == len(set(asked))
    # The two ends, three halvings and what is next to the result.
    assert change.looked_at <= 7


def test_what_was_not_run_is_not_taken_for_what_was(pins: Pins, tmp_path: Path) -> None:
    """Both are kept, each as what it is."""
    steps = _steps(pins, {3})[:4]
    subject, files = steps[3]
    # Nothing may be kept of it yet, whatever ran in this checkout before.
    data = files[FP8_UTILS] + f"# {uuid4()}\n".encode()
    steps[3] = subject, {**files, FP8_UTILS: data}
    made = bare(tmp_path / "kept.git", pins, steps)
    commit = made.commits["step 3"]
    without = made.look(commit, run=False)
    assert without.lives == ()
    ran = made.look(commit)
    assert {state.site for state in ran.lives} == {f"S{n}" for n in range(1, 9)}
    assert made.look(commit, run=False) == ran
    assert made.look(commit) == ran
