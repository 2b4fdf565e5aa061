"""Fixtures: a sealed environment, the real pinned sources, trees to work on."""

from __future__ import annotations

import compileall
import gc
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import hypothesis
import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "scripts"))

from overlaykit.core import effects, git  # noqa: E402
from overlaykit.series.carried import Carried, load_overlay  # noqa: E402
from overlaykit.series.ledger import LEDGER  # noqa: E402
from overlaykit.series.lock import TreeWithModes  # noqa: E402
from overlaykit.sources.bases import fetch_base, lay_out  # noqa: E402
from overlaykit.sources.commits import store_of  # noqa: E402
from overlaykit.sources.packages import cache_folder  # noqa: E402
from overlaykit.trees.commit import CommitTree  # noqa: E402
from overlaykit.trees.tree import EditedTree, Tree, WheelTree  # noqa: E402
from support.data import DATA  # noqa: E402
from support.forks import forked  # noqa: E402
from support.once import made_once  # noqa: E402

# A shell makes background processes ignore SIGINT, and their children inherit that;
# tests interrupt programs with it.
signal.signal(signal.SIGINT, signal.default_int_handler)

# As each verb does: syntax trees, and what pytest knows of 3,000 tests, are no garbage.
gc.set_threshold(100_000, 20, 100)

# A busy machine may be slow; the tests must not depend on it.
hypothesis.settings.register_profile(
    "any machine",
    deadline=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("any machine")

IDENTITY = git.identity("A Tester", "tester@localhost", "@1700000000 +0000")


def pytest_sessionstart() -> None:
    """Compile what the tests start hundreds of times. Python itself does it only where
    PYTHONDONTWRITEBYTECODE is not set."""
    for name in ("scripts", "ci"):
        compileall.compile_dir(ROOT / name, quiet=2)


_LONGEST = (
    "gatekit/run/test_gate_fails.py",
    "verbs/test_rebase.py",
    "verbs/test_round_trip.py",
    "xscale/numeric/test_mutants.py",
    "test_docs.py",
    "gatekit/serving/test_running.py",
    "faults/test_kill.py",
    "verbs/test_drift.py",
    "ci/test_microbench_revived.py",
    "gatekit/serving/test_deaths.py",
    "verbs/test_hostile_clones.py",
    "upstream/test_first_bad.py",
    "ci/test_cluster.py",
    "xscale/test_codegen.py",
    "faults/test_commit.py",
    "xscale/numeric/test_verify_numeric.py",
    "ci/test_rebuild.py",
)
"""The files whose slow tests take longest. A file runs in one process: one that is
started last would keep it busy after the others are done."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest files first; otherwise the order stays."""
    order = {ROOT / "tests" / name: place for place, name in enumerate(_LONGEST)}
    items.sort(key=lambda item: order.get(item.path, len(order)))


@pytest.fixture(autouse=True)
def sealed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No user configuration, fixed identity and dates, no editor, no locale."""
    home = tmp_path_factory.mktemp("home")
    seal = {
        "HOME": str(home),
        "XDG_CONFIG_HOME": str(home / "config"),
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_NOSYSTEM": "1",
        **IDENTITY,
        "GIT_EDITOR": "false",
        "QUILT_PATCHES": "patches",
        "QUILTRC": os.devnull,
        "LC_ALL": "C.UTF-8",
        "TZ": "UTC",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in seal.items():
            patch.setenv(name, value)
        # Effects of an earlier test in this process must not be reported.
        patch.setattr(effects, "_effects", {})
        yield


@dataclass(frozen=True)
class Pins:
    """The pinned bases, read from their real packages and commits.

    ``wheels`` has those that are packages.
    """

    overlay: dict[str, Carried]
    wheels: dict[str, Path]
    _trees: dict[str, TreeWithModes] = field(default_factory=dict)

    def bases(self, package: str) -> list[str]:
        """The targets that are bases of one package."""
        return [n for n, c in self.overlay.items() if c.target.package == package]

    def tree(self, target: str) -> TreeWithModes:
        """The base as it is."""
        if target not in self._trees:
            self._trees[target] = fetch_base(ROOT, self.overlay[target])
        return self._trees[target]

    def patched(self, target: str, without: Collection[str] = ()) -> Tree:
        """The release with new files and series, except for patches whose names contain
        one of ``without``. Hunks are applied at their unique context."""
        pristine = self.tree(target)
        carried = self.overlay[target]
        changes: dict[str, bytes | None] = {f.path: f.data for f in carried.new_files}
        for patch in carried.series.patches:
            if any(part in patch.name for part in without):
                continue
            for diff in patch.files:
                data = changes.get(diff.path) or pristine.read(diff.path) or b""
                for hunk in diff.hunks:
                    old, new = b"".join(hunk.old), b"".join(hunk.new)
                    assert data.count(old) == 1
                    data = data.replace(old, new)
                changes[diff.path] = data
        return EditedTree(pristine, changes)


@pytest.fixture(scope="session")
def pins() -> Pins:
    overlay = load_overlay(ROOT)
    wheels = {}
    for name, carried in overlay.items():
        fetch_base(ROOT, carried)
        if carried.lock.dist is not None:
            wheels[name] = cache_folder(ROOT) / carried.lock.dist.filename
    return Pins(overlay, wheels)


@pytest.fixture(scope="session")
def laid_out(pins: Pins, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The pinned releases as whole clones, each made when it is first asked for.
    Shared: copy before changing."""

    class LaidOut(dict[str, Path]):
        def __missing__(self, name: str) -> Path:
            def make(place: Path) -> None:
                lay_out(pins.overlay[name], pins.tree(name), place, lambda *_: None)

            self[name] = made_once(tmp_path_factory, f"pin-{name}", make)
            return self[name]

    return LaidOut()


@dataclass(frozen=True)
class Checkouts:
    """Whole clones. Shared: read only."""

    sglang: Path
    aiter: Path
    pristine_aiter: Path


@pytest.fixture(scope="session")
def checkouts(
    laid_out: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Checkouts:
    def make(folder: Path) -> None:
        part = tmp_path_factory.mktemp("part")
        for name in ("sglang", "aiter"):
            shutil.copytree(laid_out[name], part / name, symlinks=True)
        done = run_verb("apply", str(part / "sglang"), str(part / "aiter"))
        assert done.returncode == 0, done.stderr
        part.rename(folder)

    folder = made_once(tmp_path_factory, "patched", make)
    return Checkouts(folder / "sglang", folder / "aiter", laid_out["aiter"])


@pytest.fixture
def slim(pins: Pins, tmp_path: Path) -> Callable[..., Path]:
    """Makes small real clones: the touched files and their neighbours of a release."""

    def make(target: str = "sglang", name: str = "clone", clone: bool = True) -> Path:
        tree, carried = pins.tree(target), pins.overlay[target]
        root = tmp_path / name
        lay(tree, neighbours(tree, carried), root)
        if clone:
            git.run(root, "init", "-q")
            git.run(root, "add", "-A", "-f")
            # The git wrapper removes the fixture's identity from the environment.
            git.run(root, "commit", "-q", "-m", "pin", env=IDENTITY)
        return root

    return make


@pytest.fixture(scope="session")
def kernels() -> None:
    """Skips if a package that AITER's kernels need is not installed."""
    for name in ("torch", "triton", "numpy"):
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"AITER's kernels cannot be run: {name} is not installed")


def copy_overlay(copy: Path) -> Path:
    """Copy this overlay, without anything fetched or kept."""
    return give_modules(_copy_for_forks(copy))


def _copy_for_forks(copy: Path) -> Path:
    """Without the modules of the verbs: a fork has imported them. Without them a verb
    that is started as a process fails at once."""
    for name in ("patches", "overlay"):
        shutil.copytree(ROOT / name, copy / name)
    (copy / "scripts").mkdir()
    files = ("overlay.toml", "overlay.lock", "requirements.txt")
    verbs = (f"scripts/{verb.name}" for verb in (ROOT / "scripts").glob("*.py"))
    for name in (*files, *verbs):
        shutil.copy2(ROOT / name, copy / name)
    return copy


def give_modules(copy: Path) -> Path:
    """Let a copy of this overlay run verbs as processes of their own."""
    for place in (ROOT / "scripts").iterdir():
        if place.is_dir() and place.name != "__pycache__":
            shutil.copytree(place, copy / "scripts" / place.name)
    return copy


def give_packages(copy: Path) -> Path:
    """Let a copy of this overlay have the fetched bases and the ledger of releases."""
    (copy / "build" / "cache").mkdir(parents=True)
    for base in (ROOT / "build" / "cache").glob("*.whl"):
        (copy / "build" / "cache" / base.name).symlink_to(base)
    give_commits(copy)
    shutil.copy2(ROOT / LEDGER, copy / LEDGER)
    return copy


def give_commits(copy: Path) -> None:
    """Let a copy's cache have the bases that are commits."""
    for carried in load_overlay(ROOT).values():
        if carried.lock.dist is None and carried.lock.commit is not None:
            store = store_of(ROOT, carried.target, carried.lock.commit)
            (copy / "build" / "cache" / store.name).symlink_to(store)


@pytest.fixture
def overlay(tmp_path: Path) -> Path:
    """A copy of this overlay, to be broken, for verbs that are forked."""
    return _copy_for_forks(tmp_path / "overlay copy")


@pytest.fixture
def carrier(overlay: Path) -> Path:
    """A copy of this overlay that `rebase` can write to, with the fetched bases."""
    return give_packages(overlay)


@pytest.fixture(scope="session")
def questions() -> Path:
    """GSM8K's own test set."""
    path = DATA / "gsm8k" / "test.jsonl"
    if not path.is_file():
        pytest.skip(f"no {path}: set OVERLAY_TEST_DATA")
    return path


def run_verb(
    verb: str, *arguments: str, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a verb as a separate process."""
    return forked(ROOT / "scripts" / f"{verb}.py", arguments, cwd)


def valid_report(text: str) -> dict[str, Any]:
    """A verb's report; it must match the schema of all reports."""
    import jsonschema

    report: dict[str, Any] = json.loads(text)
    schema = (ROOT / "docs" / "report.schema.json").read_text(encoding="utf-8")
    jsonschema.validate(report, json.loads(schema))
    return report


def neighbours(tree: Tree, carried: Carried) -> list[str]:
    """The tree's files in the folders that the series touches, and the package."""
    folders = {path.rpartition("/")[0] for path in carried.series.paths}
    # On today's upstream, producers that the series opens and does not change.
    folders.add("python/sglang/srt/layers/layer_boundary/residual")
    package = f"{carried.target.package_root}/__init__.py"
    return [p for p in tree.paths() if p.rpartition("/")[0] in folders or p == package]


def lay(tree: Tree, paths: Collection[str], root: Path) -> None:
    """Write these files of the tree below ``root``."""
    for path in paths:
        place = root / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(tree.read(path) or b"")
        if isinstance(tree, WheelTree | CommitTree):
            place.chmod(int(tree.mode(path)[-3:], 8))


def snapshot(root: Path) -> dict[str, tuple[int, int, bytes]]:
    """Mode, mtime and contents of every file of a tree, without git's own files."""
    found = {}
    for place in sorted(root.rglob("*")):
        parts = place.relative_to(root).parts
        if place.is_file() and parts[0] != ".git" and "__pycache__" not in parts:
            stat = place.lstat()
            found["/".join(parts)] = (
                stat.st_mode,
                stat.st_mtime_ns,
                place.read_bytes(),
            )
    return found
