"""An overlay with several bases: the files show which base a tree is."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from conftest import ROOT, Pins, run_verb, snapshot
from overlaykit.applying.targets import FoundTarget, find_targets
from overlaykit.core.errors import InputError
from overlaykit.series.carried import Carried, load_overlay
from overlaykit.series.manifest import MANIFEST, load_manifest
from overlaykit.series.patches import apply_hunks
from overlaykit.sources.releases import release_tree
from support.bases import BASES, FIRST, OTHERS

SECOND = OTHERS[0]
Slim = Callable[..., Path]


def found(path: Path, pins: Pins) -> FoundTarget:
    [one] = find_targets([path], pins.overlay)
    return one


def prefixes(
    carried: Carried, contents: dict[str, bytes]
) -> Iterator[dict[str, bytes]]:
    """The files after no patch, one, two ... and all patches."""
    yield dict(contents)
    for patch in carried.series.patches:
        for diff in patch.files:
            after = apply_hunks(contents[diff.path], diff.hunks)
            assert after is not None
            contents[diff.path] = after
        yield dict(contents)


@pytest.mark.parametrize("name", BASES)
def test_any_prefix_of_a_series_identifies_its_base(
    name: str, slim: Slim, pins: Pins
) -> None:
    """With any folder name and any order in the manifest."""
    root, carried = slim(name, "of some name"), pins.overlay[name]
    released = {path: (root / path).read_bytes() for path in carried.series.paths}
    backwards = dict(reversed(pins.overlay.items()))
    for files in prefixes(carried, released):
        for path, data in files.items():
            (root / path).write_bytes(data)
        for overlay in (pins.overlay, backwards):
            [one] = find_targets([root], overlay)
            assert (one.carried.name, one.mismatch) == (name, ())


@pytest.mark.parametrize("name", BASES)
def test_each_image_is_served_by_the_same_command(name: str, slim: Slim) -> None:
    root = slim(name, clone=False)
    before = snapshot(root)
    for verb in ("apply", "verify"):
        done = run_verb(verb, "--json", str(root))
        [result] = json.loads(done.stdout)["results"]
        assert (done.returncode, result["target"]) == (0, name)
    assert run_verb("apply", "--unapply", str(root)).returncode == 0
    after = snapshot(root)
    assert {p: d for p, (_, _, d) in after.items()} == {
        p: d for p, (_, _, d) in before.items()
    }


def test_both_at_once(slim: Slim) -> None:
    one, two = slim(FIRST, "one"), slim(SECOND, "two")
    done = run_verb("apply", "--json", str(two), str(one))
    results = json.loads(done.stdout)["results"]
    assert [r["target"] for r in results] == [SECOND, FIRST]
    assert run_verb("verify", str(one), str(two)).returncode == 0


def test_the_base_is_known_despite_an_edit(slim: Slim, pins: Pins) -> None:
    """The report compares with the most similar release."""
    root = slim(SECOND)
    path = pins.overlay[SECOND].series.paths[0]
    (root / path).write_bytes((root / path).read_bytes() + b"# edited\n")
    one = found(root, pins)
    assert one.carried.name == SECOND
    [finding] = one.mismatch
    # Bases that are adopted later come after these.
    assert (finding.found or "").startswith(
        "files that match: sglang 0.5.11 (0 of 4), sglang 0.5.12.post1 (3 of 4), "
        "sglang 0.5.23 (0 of 10), sglang 0.5.22 (0 of 9), sglang 0.5.19 (0 of 9)"
    )
    assert (finding.found or "").count(" of ") == len(pins.bases("sglang"))
    done = run_verb("apply", str(root))
    assert done.returncode == 3
    assert "sglang 0.5.12.post1)" in done.stderr


def test_files_of_two_bases_are_refused(slim: Slim, pins: Pins) -> None:
    """Half of the files from each base: refused, and nothing is written."""
    root, other = slim(FIRST, "root"), slim(SECOND, "other")
    paths = pins.overlay[FIRST].series.paths
    for path in paths[:2]:
        shutil.copy2(other / path, root / path)
    before = snapshot(root)
    done = run_verb("apply", "--json", str(root))
    report = json.loads(done.stdout)
    assert done.returncode == 3
    [stranger] = [f for f in report["findings"] if "matches no release" in f["what"]]
    for known in ("sglang 0.5.11 (2 of 4)", "sglang 0.5.12.post1 (2 of 4)"):
        assert known in stranger["found"]
    assert snapshot(root) == before


def test_another_release_is_refused_with_all_bases(slim: Slim, pins: Pins) -> None:
    root = slim()
    release = release_tree(ROOT, pins.overlay[FIRST].target, "0.5.13")
    for path in pins.overlay[FIRST].series.paths:
        (root / path).write_bytes(release.read(path) or b"")
    for verb, code in (("apply", 3), ("verify", 1)):
        done = run_verb(verb, str(root))
        assert done.returncode == code
        assert "matches no release that this overlay is made for" in done.stderr
        assert "sglang 0.5.11 (0 of 4), sglang 0.5.12.post1 (0 of 4)" in done.stderr
        assert "rebase" in done.stderr


def test_of_two_matching_bases_the_first_in_the_manifest_wins(
    slim: Slim, pins: Pins
) -> None:
    """Releases with the same touched files are equal for a series."""
    twin = replace(pins.overlay[FIRST], name="twin")
    [one] = find_targets([slim()], {"twin": twin, **pins.overlay})
    assert (one.carried.name, one.mismatch) == ("twin", ())


def test_new_files_are_shared(pins: Pins) -> None:
    assert pins.overlay[SECOND].new_files == pins.overlay[FIRST].new_files
    assert not (ROOT / "overlay" / SECOND).exists()


def test_removing_a_base(carrier: Path, slim: Slim, pins: Pins) -> None:
    """Delete the tables and folders of all from the second on, and make the lock
    again."""
    text = (carrier / MANIFEST).read_text()
    at = text.index(f'\n[targets."{SECOND}"]')
    (carrier / MANIFEST).write_text(text[:at])
    for name in set(pins.overlay) - {FIRST, "aiter"}:
        shutil.rmtree(carrier / "patches" / name)
    with pytest.raises(InputError, match="stale"):
        load_overlay(carrier)
    from verbs.test_rebase import call

    assert call(carrier, "lock").returncode == 0
    known = load_overlay(carrier)
    assert set(known) == {FIRST, "aiter"}
    [one] = find_targets([slim(SECOND)], known)
    assert (one.carried.name, one.mismatch) == (FIRST, ())


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ('[targets."a/b"]', "cannot be a folder name"),
        ('[targets.x]\noverlay = "none"', "cannot share the new files of 'none'"),
        ('[targets.x]\noverlay = "aiter"', "cannot share the new files of 'aiter'"),
        (f'[targets.x]\noverlay = "{SECOND}"', "with its own new files"),
    ],
)
def test_an_invalid_manifest_is_refused(overlay: Path, table: str, said: str) -> None:
    rest = (
        'repository = "https://localhost"\npackage = "sglang"\n'
        'package_root = "python/sglang"\ndist = { name = "sglang", version = "1" }\n'
    )
    with (overlay / MANIFEST).open("a") as file:
        file.write(f"\n{table}\n{rest}")
    with pytest.raises(InputError) as refused:
        load_manifest(overlay)
    assert said in str(refused.value)
