"""A kept answer about liveness is the one that running would give, or there is none."""

from __future__ import annotations

import os
import site
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from conftest import Pins
from overlaykit.core.kept import Kept, key_of
from overlaykit.trees.tree import DirectoryTree, EditedTree
from xscale import liveness
from xscale.liveness import Life, LiveState, modules_of, probe
from xscale.numeric import client, inputs
from xscale.numeric.cases import Platform
from xscale.numeric.client import Job
from xscale.numeric.formats import MXFP8, NATIVE_BLOCK_FP8
from xscale.numeric.inputs import inputs_of
from xscale.numeric.lives import life_cases
from xscale.numeric.sources import Sources, aiter_sources, sglang_sources

SRT = "python/sglang/srt"


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Kept[Any]:
    """An empty store instead of the overlay's."""
    empty: Kept[Any] = Kept(tmp_path / "lives", tuple[LiveState, ...])
    monkeypatch.setattr(liveness, "_KEPT", empty)
    return empty


@pytest.fixture
def job(pins: Pins) -> Job:
    tree = pins.tree("sglang")
    sources = sglang_sources(tree, modules_of(tree, NATIVE_BLOCK_FP8))
    cases = life_cases(NATIVE_BLOCK_FP8, Platform.GFX95)
    return Job(sources, aiter_sources(pins.patched("aiter")), None, cases)


@pytest.fixture(autouse=True)
def packages_as_they_are() -> Iterator[None]:
    """What a test replaced is not remembered."""
    yield
    _forget()


def _forget() -> None:
    for function in (inputs._packages, inputs._places, inputs._records):
        function.cache_clear()


def _never(*_: object) -> Any:
    raise AssertionError("a worker is started")


def test_a_kept_answer_is_the_same(
    pins: Pins, kernels: None, store: Kept[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of sites that are live, dead and not run, and without a worker."""
    aiter = pins.patched("aiter")
    dead = f"{SRT}/models/deepseek_common/attention_forward_methods/forward_mha.py"
    gone = f"{SRT}/models/deepseek_v2.py"
    tree = pins.tree("sglang")
    changes = {
        path: (tree.read(path) or b"").replace(old, new)
        for path, old, new in (
            (dead, b"kv_b_proj.weight.dtype == torch.float8_e4m3fn", b"kv_b_proj is 1"),
            (gone, b"class DeepseekV2DecoderLayer", b"class Renamed"),
        )
    }
    edited = EditedTree(tree, dict(changes))
    fresh = probe(edited, aiter)
    assert {state.state for state in fresh.values()} == set(Life)
    monkeypatch.setattr(liveness, "worker", _never)
    assert probe(edited, aiter) == fresh
    with pytest.raises(AssertionError, match="a worker is started"):
        probe(tree, aiter)


def test_where_a_tree_is_does_not_matter(
    pins: Pins, kernels: None, store: Kept[Any], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    tree = pins.tree("sglang")
    sources = sglang_sources(tree, modules_of(tree, NATIVE_BLOCK_FP8))
    for path, data in sources.modules.values():
        place = tmp_path / "elsewhere" / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(data)
    fresh = probe(tree, pins.patched("aiter"))
    monkeypatch.setattr(liveness, "worker", _never)
    elsewhere = DirectoryTree(tmp_path / "elsewhere")
    assert probe(elsewhere, pins.patched("aiter")) == fresh


def _edited(sources: Sources, module: str) -> Sources:
    path, data = sources.modules[module]
    changed = dict(sources.modules) | {module: (path, data + b"\n")}
    return replace(sources, modules=changed)


def test_an_edit_of_any_module_changes_the_key(job: Job) -> None:
    before = inputs_of(job, "cpu")
    assert before is not None
    keys = {key_of(before)}
    count = 1
    for module in job.tree.modules:
        found = inputs_of(replace(job, tree=_edited(job.tree, module)), "cpu")
        assert found is not None
        keys.add(key_of(found))
        count += 1
    for module in job.aiter.modules:
        found = inputs_of(replace(job, aiter=_edited(job.aiter, module)), "cpu")
        assert found is not None
        keys.add(key_of(found))
        count += 1
    assert count > 10
    assert len(keys) == count


def _without_a_place(job: Job) -> Job:
    places = dict(list(job.tree.places.items())[1:])
    return replace(job, tree=replace(job.tree, places=places))


def _with_a_package(job: Job) -> Job:
    foreign = job.tree.foreign | {"another_package_that_is_not_there"}
    return replace(job, tree=replace(job.tree, foreign=foreign))


@pytest.mark.parametrize(
    "change",
    [
        _without_a_place,
        _with_a_package,
        lambda job: replace(job, cases=job.cases[1:]),
        lambda job: replace(job, cases=life_cases(MXFP8, Platform.GFX95)),
        lambda job: replace(job, cases=life_cases(NATIVE_BLOCK_FP8, Platform.GFX942)),
        lambda job: replace(job, pristine=job.tree),
    ],
    ids=["a place", "an import", "a case", "the format", "the platform", "the base"],
)
def test_the_rest_of_the_job_counts(job: Job, change: Callable[[Job], Job]) -> None:
    before, after = inputs_of(job, "cpu"), inputs_of(change(job), "cpu")
    assert before is not None and after is not None
    assert key_of(before) != key_of(after)


@pytest.mark.parametrize(
    "name",
    ["TRITON_DEBUG", "SGLANG_USE_AITER", "HIP_VISIBLE_DEVICES", "OMP_NUM_THREADS"],
)
def test_the_environment_counts(
    job: Job, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    before = inputs_of(job, "cpu")
    monkeypatch.setenv(name, "7")
    after = inputs_of(job, "cpu")
    assert before is not None and after is not None
    assert before["environment"] != after["environment"]
    assert {n for n in before if before[n] != after[n]} == {"environment"}


def test_other_variables_do_not_reach_the_worker(
    job: Job,
    kernels: None,
    store: Kept[Any],
    monkeypatch: pytest.MonkeyPatch,
    pins: Pins,
) -> None:
    """So they need not count: a module that reads one finds nothing."""
    before = inputs_of(job, "cpu")
    monkeypatch.setenv("SOME_SETTING", "1")
    assert inputs_of(job, "cpu") == before
    path = f"{SRT}/models/deepseek_common/attention_forward_methods/forward_mha.py"
    tree = pins.tree("sglang")
    data = (tree.read(path) or b"").replace(
        b"self.kv_b_proj.weight.dtype == torch.float8_e4m3fn",
        b"__import__('os').environ.get('SOME_SETTING') is None",
    )
    monkeypatch.setattr(client, "_workers", {})
    states = probe(EditedTree(tree, {path: data}), pins.patched("aiter"))
    assert states["S7"].state is Life.LIVE


def _installed(folder: Path) -> None:
    info = folder / "torch-1.0.dist-info"
    info.mkdir(parents=True)
    (folder / "torch").mkdir()
    (info / "RECORD").write_text("torch/__init__.py,sha256=aa,1\n")


def _upgraded(folder: Path) -> None:
    (folder / "torch-1.0.dist-info").rename(folder / "torch-1.1.dist-info")


def _rebuilt(folder: Path) -> None:
    record = folder / "torch-1.0.dist-info" / "RECORD"
    record.write_text("torch/__init__.py,sha256=bb,1\n")


def _added(folder: Path) -> None:
    (folder / "another.py").write_text("")


def _linked(folder: Path) -> None:
    (folder / "more.pth").write_text("import another\n")


def _more_on_the_path(folder: Path) -> None:
    (folder.parent / "path" / "another").mkdir()


@pytest.mark.parametrize(
    "change", [_upgraded, _rebuilt, _added, _linked, _more_on_the_path]
)
def test_the_installed_packages_count(
    job: Job,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    change: Callable[[Path], None],
) -> None:
    folder = tmp_path / "site-packages"
    _installed(folder)
    (tmp_path / "path").mkdir()
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "path"))
    monkeypatch.setattr(site, "getsitepackages", lambda: [str(folder)])
    monkeypatch.setattr(site, "ENABLE_USER_SITE", False)
    found = []
    for step in (lambda _: None, change):
        step(folder)
        _forget()
        found.append(inputs_of(job, "cpu"))
    before, after = found
    assert before is not None and after is not None
    assert {n for n in before if before[n] != after[n]} == {"packages"}


def _shadowed(folder: Path, other: Path, patch: pytest.MonkeyPatch) -> None:
    (other / "triton.py").write_text("")
    patch.setenv("PYTHONPATH", str(other))


def _a_folder_more(folder: Path, other: Path, patch: pytest.MonkeyPatch) -> None:
    (other / "einops").mkdir()
    (folder / "theirs.pth").write_text(f"{other}\n")


def _editable(folder: Path, other: Path, patch: pytest.MonkeyPatch) -> None:
    finder = folder / "__editable___transformers_finder.py"
    finder.write_text(f"MAPPING = {{'transformers': '{other}'}}\n")


def _unrecorded(folder: Path, other: Path, patch: pytest.MonkeyPatch) -> None:
    (folder / "numpy").mkdir()


@pytest.mark.parametrize("change", [_shadowed, _a_folder_more, _editable, _unrecorded])
def test_a_package_that_no_installer_recorded(
    job: Job,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    change: Callable[[Path, Path, pytest.MonkeyPatch], None],
) -> None:
    """Its contents are no input that has a name, so nothing is kept."""
    folder, other = tmp_path / "site-packages", tmp_path / "other"
    _installed(folder)
    other.mkdir()
    monkeypatch.delenv("PYTHONPATH", raising=False)
    monkeypatch.setattr(site, "getsitepackages", lambda: [str(folder)])
    monkeypatch.setattr(site, "ENABLE_USER_SITE", False)
    _forget()
    assert inputs_of(job, "cpu") is not None
    change(folder, other, monkeypatch)
    assert inputs_of(job, "cpu") is None


def test_the_program_counts(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    before = inputs_of(job, "cpu")
    monkeypatch.setattr(inputs, "of_program", lambda *_: "another")
    after = inputs_of(job, "cpu")
    assert before is not None and after is not None
    assert {n for n in before if before[n] != after[n]} == {"program"}
    assert before["python"] == f"{sys.implementation.name} {sys.version}"


@pytest.mark.parametrize(
    ("reason", "chance"),
    [
        ("OSError: [Errno 28] No space left on device", True),
        ("MemoryError: ", True),
        ("RuntimeError: can't start new thread", True),
        ("OutOfMemoryError: 1 GiB", True),
        ("SyntaxError: x (/tmp/numeric-aiter-ab/aiter/x.py)", True),
        ("AttributeError: no such attribute (python/sglang/x.py:1 in f)", False),
        ("q_b is not reached", False),
    ],
)
def test_what_the_machine_may_have_caused_is_not_kept(
    reason: str, chance: bool
) -> None:
    state = LiveState("S1", Life.NOT_RUN, reason=reason)
    assert liveness._may_be_chance(state) is chance
    assert not liveness._may_be_chance(replace(state, state=Life.DEAD))


def test_a_damaged_answer_is_run_again(
    pins: Pins, kernels: None, store: Kept[Any], tmp_path: Path
) -> None:
    aiter, tree = pins.patched("aiter"), pins.tree("sglang")
    fresh = probe(tree, aiter)
    [entry] = (tmp_path / "lives").iterdir()
    data = entry.read_bytes()
    assert b'"live"' in data
    entry.write_bytes(data.replace(b'"live"', b'"dead"'))
    os.utime(entry)
    assert probe(tree, aiter) == fresh
    assert entry.read_bytes() == data
