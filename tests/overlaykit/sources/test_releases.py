"""Releases fetched with pip, from a folder of wheels in place of the index."""

from __future__ import annotations

import json
import random
import sys
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from conftest import ROOT, Pins
from overlaykit.core import git
from overlaykit.core.errors import EnvironmentFailure, InputError
from overlaykit.core.versions import order
from overlaykit.series.ledger import LEDGER, ledger
from overlaykit.series.manifest import Target
from overlaykit.sources.packages import cache_folder
from overlaykit.sources.releases import (
    known,
    ladder,
    listed,
    newer,
    obtain,
    release_tree,
    released,
)
from support.forks import forked

_PATH = "python/sglang/version.py"
_SAME = 'version = "{}"\n'

Publish = Callable[..., Path]


@pytest.fixture
def publish(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Publish:
    """Puts a wheel on the index, which is empty otherwise."""
    index = tmp_path / "index"
    index.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))

    def publish(version: str, tag: str = "py3-none-any", text: str = _SAME) -> Path:
        wheel = index / f"sglang-{version}-{tag}.whl"
        about = f"sglang-{version}.dist-info"
        with zipfile.ZipFile(wheel, "w") as file:
            file.writestr("sglang/version.py", text.format(version))
            metadata = f"Metadata-Version: 2.1\nName: sglang\nVersion: {version}\n"
            file.writestr(f"{about}/METADATA", metadata)
            file.writestr(f"{about}/WHEEL", f"Wheel-Version: 1.0\nTag: {tag}\n")
            file.writestr(f"{about}/RECORD", "")
        return wheel

    return publish


@pytest.fixture
def target(pins: Pins) -> Target:
    return released(pins.overlay["sglang"].target, "0.5.10")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """An overlay without recorded releases; the test uses nothing else of it."""
    (tmp_path / "overlay").mkdir()
    return tmp_path / "overlay"


def test_the_order_follows_pep_440() -> None:
    versions = ["0.5.9", "0.5.10.dev1", "0.5.10.dev10", "0.5.10"]
    versions += ["0.5.10.post1.dev3", "0.5.10.post1", "0.5.10.post2", "0.5.10.post10"]
    versions += ["0.5.10.1", "0.5.11", "0.6", "1", "2024.1"]
    shuffled = versions.copy()
    random.Random(1).shuffle(shuffled)
    assert sorted(shuffled, key=order) == versions
    assert order("1") == order("1.0") == order("1.0.0")
    assert order("0.5.10") != order("0.5.1")


@pytest.mark.parametrize(
    "version", ["", "v0.5.1", "0.5.1rc1", "0.5.1a2", "0.5.", "0.5.1+cu12", "newest"]
)
def test_an_invalid_version(root: Path, target: Target, version: str) -> None:
    with pytest.raises(InputError, match="not the version of a release"):
        obtain(root, target, version)


def test_the_releases_on_the_index(publish: Publish, target: Target) -> None:
    """In order; no pre-releases, and no wheels for other Pythons."""
    for version in ("0.5.10.post1", "0.5.9", "0.5.10", "0.5.12rc1", "0.5.12.dev4"):
        publish(version)
    publish("0.5.11", "cp311-cp311-manylinux_2_34_x86_64")
    publish("0.5.13", "cp39-cp39-manylinux_2_34_x86_64")
    found = listed(target.package_dist)
    assert found == ("0.5.9", "0.5.10", "0.5.10.post1", "0.5.11")


def test_a_release_is_recorded_once_and_stays_the_same(
    publish: Publish, root: Path, target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish("0.5.10")
    publish("0.5.9")
    obtain(root, target, "0.5.10")
    tree = release_tree(root, target, "0.5.9")
    assert tree.read(_PATH) == b'version = "0.5.9"\n'
    assert [r.version for r in known(root, "sglang")] == ["0.5.9", "0.5.10"]
    written = (root / LEDGER).read_bytes()
    assert written.index(b'"0.5.9"') < written.index(b'"0.5.10"')
    # From here on, pip cannot start.
    monkeypatch.setattr(sys, "executable", str(root / "no python"))
    assert obtain(root, target, "0.5.9").parent == cache_folder(root)
    assert (root / LEDGER).read_bytes() == written
    with pytest.raises(EnvironmentFailure, match="cannot run pip"):
        obtain(root, target, "0.5.11")


def test_other_bytes_under_a_recorded_name(
    publish: Publish, root: Path, target: Target
) -> None:
    """In the cache or on the index: refused, and not kept."""
    publish("0.5.10")
    wheel = obtain(root, target, "0.5.10")
    recorded = ledger(root)
    wheel.write_bytes(wheel.read_bytes() + b"\0")
    with pytest.raises(InputError) as refused:
        obtain(root, target, "0.5.10")
    assert "hash mismatch" in str(refused.value)
    assert recorded.releases["sglang"]["0.5.10"].sha256 in str(refused.value)
    assert not wheel.exists()
    publish("0.5.10", text="# {} as it never was\n")
    with pytest.raises(InputError, match="hash mismatch"):
        obtain(root, target, "0.5.10")
    assert list(cache_folder(root).iterdir()) == []
    assert ledger(root) == recorded


def test_an_unknown_release_and_an_unreachable_index(
    publish: Publish, root: Path, target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish("0.5.10")
    publish("0.5.11")
    obtain(root, target, "0.5.10")
    with pytest.raises(InputError) as unknown:
        obtain(root, target, "0.5.12")
    (finding,) = unknown.value.findings
    assert finding.expected == "one of 0.5.10, 0.5.11"
    monkeypatch.setenv("PIP_FIND_LINKS", str(root))
    with pytest.raises(
        EnvironmentFailure, match="the package index lists no releases of sglang"
    ):
        obtain(root, target, "0.5.11")
    assert obtain(root, target, "0.5.10").exists()


def test_ladder_from_the_oldest_recorded(
    publish: Publish, root: Path, target: Target
) -> None:
    for version in ("0.5.8", "0.5.9", "0.5.10", "0.5.11"):
        publish(version)
    seen: list[tuple[int, int]] = []

    def climb() -> list[str]:
        found = ladder(root, target, lambda _, done, total: seen.append((done, total)))
        return [release.version for release in found]

    assert newer(root, target.package_dist) == ("0.5.8", "0.5.9", "0.5.10", "0.5.11")
    assert climb() == ["0.5.10", "0.5.11"]  # from the pin, as nothing is recorded
    assert seen == [(1, 2), (2, 2)]
    obtain(root, target, "0.5.9")
    publish("0.5.12")
    assert newer(root, target.package_dist) == ("0.5.12",)
    assert climb() == ["0.5.9", "0.5.10", "0.5.11", "0.5.12"]
    assert newer(root, target.package_dist) == ()


@pytest.mark.parametrize("text", ["{", '{"format": 2}', '{"format": 1, "more": 1}'])
def test_no_ledger(root: Path, text: str) -> None:
    (root / LEDGER).write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=r"releases\.lock"):
        known(root, "sglang")


def test_the_committed_ledger(pins: Pins) -> None:
    """It begins where the ladder does, is in order, and agrees with overlay.lock."""
    lock = pins.overlay["sglang"].lock
    releases = {release.version: release.dist for release in known(ROOT, "sglang")}
    assert next(iter(releases)) == "0.5.10.post1"
    assert releases["0.5.11"] == lock.dist
    assert list(json.loads((ROOT / LEDGER).read_bytes())["releases"]["sglang"]) == [
        *releases
    ]


def fetch(overlay: Path, *arguments: str) -> tuple[int, Mapping[str, object], str]:
    """Run the overlay's own verb: exit code, report and output."""
    done = forked(overlay / "scripts" / "fetch.py", ["--json", *arguments])
    return done.returncode, json.loads(done.stdout), done.stderr


def outcomes(report: Mapping[str, object]) -> list[tuple[str, str]]:
    results = report["results"]
    assert isinstance(results, list)
    return [(Path(r["tree"]).name, r["outcome"]) for r in results]


def test_verb(publish: Publish, overlay: Path) -> None:
    publish("0.5.12")
    publish("0.5.12.post2")
    code, report, said = fetch(overlay, "--release", "0.5.12")
    assert (code, outcomes(report)) == (0, [("sglang-0.5.12", "laid out")]), said
    clone = overlay / "build" / "sglang-0.5.12"
    assert (clone / _PATH).read_text(encoding="utf-8") == 'version = "0.5.12"\n'
    assert git.run(clone, "status", "--porcelain").stdout == b""
    subject = git.run(clone, "log", "-1", "--format=%s", "pin").stdout
    assert subject == b"sglang 0.5.12 as released\n"
    code, report, _ = fetch(overlay, "--release", "0.5.12", "--ladder")
    assert code == 0
    assert outcomes(report) == [
        ("sglang-0.5.12", "already laid out"),
        ("sglang-0.5.12-py3-none-any.whl", "as recorded"),
        ("sglang-0.5.12.post2-py3-none-any.whl", "recorded"),
    ]
    assert not (overlay / "build" / "sglang-0.5.12.post2").exists()


def test_verb_refuses(publish: Publish, overlay: Path) -> None:
    code, report, _ = fetch(overlay, "--ladder", "--target", "vllm")
    assert code == 2 and "sglang, aiter" in str(report["message"])
    code, report, _ = fetch(overlay, "--ladder")
    assert code == 5 and "the package index lists no releases" in str(report["message"])
    publish("0.5.12")
    code, report, _ = fetch(overlay, "--release", "0.5.13")
    assert code == 2 and "0.5.12" in str(report["findings"])
    mine = overlay / "build" / "sglang-0.5.12"
    mine.mkdir(parents=True)
    (mine / "work").touch()
    code, report, _ = fetch(overlay, "--release", "0.5.12")
    assert code == 2 and "move it away" in str(report["message"])
    assert (mine / "work").exists()
