"""Upstream releases, by themselves and as a git history."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from conftest import ROOT, Pins
from overlaykit.core.errors import EnvironmentFailure
from overlaykit.sources.releases import release_tree
from upstream.analysis import Analysis, all_facts
from upstream.clone import Clone
from upstream.facts import Facts
from upstream.sources import recorded, release_source

from .histories import Files, build, needed

FP8_UTILS = "python/sglang/srt/layers/quantization/fp8_utils.py"


def facts_of_release(pins: Pins, version: str) -> Facts:
    """A release's facts; skips if the release cannot be fetched."""
    carried = pins.overlay["sglang"]
    try:
        source = release_source(ROOT, carried, version)
    except EnvironmentFailure as error:
        pytest.skip(f"the release cannot be fetched: {error}")
    [facts] = all_facts(ROOT, carried, [source], lambda *_: None)
    return facts


@dataclass(frozen=True)
class History:
    """A commit for each release, named by its version, and two more with noise."""

    clone: Clone
    commits: dict[str, str]

    def look(self, commit: str, run: bool = True) -> Facts:
        source = self.clone.source(commit)
        with Analysis(ROOT, self.clone.carried, lambda *_: None) as analysis:
            if not run:
                return analysis.without_running(source)
            [facts] = analysis.facts([source])
            return facts


@pytest.fixture(scope="session")
def releases(pins: Pins) -> list[str]:
    """The recorded releases; skips if one of them cannot be fetched."""
    carried = pins.overlay["sglang"]
    versions = [release.version for release in recorded(ROOT, carried)]
    try:
        for version in versions:
            release_source(ROOT, carried, version)
    except EnvironmentFailure as error:
        pytest.skip(f"the releases cannot be fetched: {error}")
    return versions


@pytest.fixture(scope="session")
def history(
    pins: Pins, releases: list[str], tmp_path_factory: pytest.TempPathFactory
) -> History:
    carried = pins.overlay["sglang"]

    def steps() -> Iterator[tuple[str, Files]]:
        for version in releases:
            files = needed(release_tree(ROOT, carried.target, version))
            yield version, files
            yield f"{version}, a note", files | {"NOTES": version.encode()}
            shifted = b"# A line more.\n" + files[FP8_UTILS]
            yield f"{version}, shifted", files | {FP8_UTILS: shifted}

    folder = tmp_path_factory.mktemp("history") / "upstream.git"
    return History(Clone(folder, carried), build(folder, steps()))


def bare(folder: Path, pins: Pins, steps: Sequence[tuple[str, Files]]) -> History:
    """A history of the test's own commits."""
    commits = build(folder, steps)
    return History(Clone(folder, pins.overlay["sglang"]), commits)
