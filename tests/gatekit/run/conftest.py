"""A copy of the repository for running the gate, and GSM8K's questions."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import Pins
from support.gate_runs import REBUILD, Copy, another, copy_repository, profile
from support.patience import wait_until
from support.processes import running


@pytest.fixture(scope="session")
def repository(pins: Pins, tmp_path_factory: pytest.TempPathFactory) -> Copy:
    """Shared: copy it before a change. ``pins`` has fetched the packages."""
    assert pins.wheels
    return copy_repository(tmp_path_factory.mktemp("gate") / "repository")


@pytest.fixture(scope="session")
def installed(
    repository: Copy, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Path]:
    """A run directory with both arms installed and no questions answered. Shared: a
    profile with another server or other questions gets its own folder."""
    folder = tmp_path_factory.mktemp("installed")
    ended = repository.gate(profile(folder, REBUILD), folder / "run")
    assert ended.states["rebuild"] == "pass", ended.all_output
    yield folder / "run"
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def out(installed: Path, tmp_path: Path) -> Iterator[Path]:
    """A run directory of this test, with both arms installed."""
    place = tmp_path / "run"
    place.mkdir()
    for name in ("apply", "verify", "rebuild"):
        (place / name).symlink_to(installed / name)
    yield place
    wait_until(lambda: not running(place))


@pytest.fixture
def broken(repository: Copy, tmp_path: Path) -> Iterator[Copy]:
    """A copy to break; it is deleted after the test, because trees are large."""
    copy = another(repository, tmp_path / "broken")
    yield copy
    shutil.rmtree(tmp_path, ignore_errors=True)
