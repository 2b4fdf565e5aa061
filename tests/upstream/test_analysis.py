"""Facts are the same however they are computed, and an interrupt loses none."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from conftest import ROOT, Pins, give_modules
from overlaykit.core.documents import to_json_line
from overlaykit.core.errors import EnvironmentFailure
from overlaykit.series.carried import load_overlay
from overlaykit.sources.releases import release_tree
from overlaykit.trees.tree import GitTree, WheelTree
from support.patience import PATIENCE_S, wait_until
from upstream import analysis
from upstream.analysis import Analysis, all_facts
from upstream.facts import facts_of
from upstream.sources import Source, release_source

from .conftest import FP8_UTILS, History, bare
from .histories import needed

COMMUNICATOR = "python/sglang/srt/layers/communicator.py"
NEXT = "0.5.12"
MANY = 24
"""Commits; enough that an interrupt after the first five leaves some."""


@pytest.fixture
def root(carrier: Path) -> Path:
    """An overlay with nothing kept, and without AITER's kernels: what running them
    shows is kept elsewhere."""
    for wheel in (carrier / "build" / "cache").glob("amd_aiter*"):
        wheel.unlink()
    return give_modules(carrier)


@pytest.fixture
def changing(pins: Pins, tmp_path: Path) -> History:
    """The pin and its successor, and commits that change one file or none of ours."""
    carried = pins.overlay["sglang"]
    try:
        later = release_tree(ROOT, carried.target, NEXT)
    except EnvironmentFailure as error:
        pytest.skip(f"the release cannot be fetched: {error}")
    files, more = needed(pins.tree("sglang")), needed(later)
    shifted = files | {FP8_UTILS: b"# A line more.\n" + files[FP8_UTILS]}
    renamed = shifted | {
        COMMUNICATOR: shifted[COMMUNICATOR].replace(b"fused_rms_fp8_", b"f_")
    }
    steps = [
        ("pin", files),
        ("shifted", shifted),
        ("noted", shifted | {"NOTES": b"nothing\n"}),
        ("renamed", renamed),
        ("gone", {path: data for path, data in renamed.items() if path != FP8_UTILS}),
        ("back", files),
        ("next", more),
    ]
    return bare(tmp_path / "changing.git", pins, steps)


def test_shared_and_kept_facts_are_the_same(
    root: Path, changing: History, pins: Pins
) -> None:
    """As those of each tree by itself, byte for byte."""
    carried = load_overlay(root)["sglang"]
    commits = [*changing.commits.values()]
    sources: list[Source] = changing.clone.sources(commits)
    sources += [release_source(root, carried, v) for v in ("0.5.11", NEXT)]
    others = [
        one
        for one in load_overlay(root).values()
        if one.target.package == "sglang" and one.name != "sglang"
    ]
    alone = []
    for source in sources:
        base = pins.tree("sglang")
        if source.treeish is None:
            tree = WheelTree(source.place, carried.target.site_layout())
            alone.append(facts_of(carried, tree, base, others))
        else:
            with GitTree(source.place, source.treeish) as commit:
                alone.append(facts_of(carried, commit, base, others))
    for _ in ("computed", "kept"):
        found = all_facts(root, carried, sources, lambda *_: None)
        assert [to_json_line(one) for one in found] == [
            to_json_line(one) for one in alone
        ]
    assert len({to_json_line(one) for one in alone}) > 4


def test_an_edit_of_any_file_is_another_version(
    root: Path, changing: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even of one that no patch and no site is in."""
    carried = load_overlay(root)["sglang"]
    names = ["pin", "shifted", "noted", "renamed", "gone", "next"]
    sources = changing.clone.sources([changing.commits[name] for name in names])
    identities = [source.version.identity for source in sources]
    assert len(set(identities)) == len(names)
    [back] = changing.clone.sources([changing.commits["back"]])
    assert back.version.identity == identities[0]
    all_facts(root, carried, sources[:1], lambda *_: None)

    def never(*_: object) -> Any:
        raise AssertionError("facts are computed")

    monkeypatch.setattr(analysis, "compute_facts", never)
    all_facts(root, carried, [back], lambda *_: None)
    for source in sources[1:]:
        with pytest.raises(AssertionError, match="facts are computed"):
            all_facts(root, carried, [source], lambda *_: None)


def test_progress_counts_down(root: Path, changing: History) -> None:
    """Over all versions, kept ones too; and nothing is said if all are kept."""
    carried = load_overlay(root)["sglang"]
    said: list[tuple[str, int, int]] = []
    sources = changing.clone.sources([*changing.commits.values()])
    with Analysis(root, carried, lambda *one: said.append(one)) as run:
        run.facts(sources[:2])
        assert said == [("versions", 1, 2), ("versions", 2, 2)]
        said.clear()
        run.facts(sources)
        # Two trees are the same, and two were known.
        assert said == [("versions", n, 6) for n in range(3, 7)]
        said.clear()
        run.facts(sources)
        assert said == []


def test_an_interrupt_keeps_what_is_known(
    root: Path, pins: Pins, tmp_path: Path
) -> None:
    files = needed(pins.tree("sglang"))
    steps = [
        (f"step {n}", files | {FP8_UTILS: b"#\n" * n + files[FP8_UTILS]})
        for n in range(MANY)
    ]
    made = bare(tmp_path / "long.git", pins, steps)
    first, last = made.commits["step 0"], made.commits[f"step {MANY - 1}"]
    folder = root / "build" / "cache" / "drift"
    command = [
        sys.executable, str(root / "scripts" / "drift.py"), "--json",
        "--clone", str(made.clone.path), "--range", f"{first}..{last}",
    ]  # fmt: skip

    def entries() -> int:
        return len(list(folder.glob("*.json"))) if folder.is_dir() else 0

    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as verb:
        # More than the two ends, with which a range begins.
        wait_until(lambda: entries() > 4 or verb.poll() is not None)
        verb.send_signal(signal.SIGINT)
        stdout, stderr = verb.communicate(timeout=PATIENCE_S)
    assert verb.returncode == 130, stderr
    report = json.loads(stdout)
    assert report["exit_code"] == 130
    known = report["results"]
    assert 4 < len(known) < MANY
    assert len(known) == entries()
    assert f"interrupted: {len(known)} of {MANY} versions" in stderr + report["message"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    results = {one["tree"]: one for one in json.loads(done.stdout)["results"]}
    assert len(results) == MANY
    assert all(results[one["tree"]] == one for one in known)
    assert f"versions: {len(known) + 1}/{MANY}" in done.stderr
