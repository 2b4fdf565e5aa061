"""The client of the pinned release; tests that need it are skipped without."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from conftest import Pins
from support.serving_client import lay_out

_NEEDED = ("aiohttp", "numpy", "requests", "scipy", "tqdm")


@pytest.fixture(scope="session")
def sglang(pins: Pins, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For PYTHONPATH: the pinned release's own client."""
    if any(importlib.util.find_spec(name) is None for name in _NEEDED):
        pytest.skip(f"bench_serving and its comparison need {', '.join(_NEEDED)}")
    target = pins.bases("sglang")[0]
    return lay_out(pins.wheels[target], tmp_path_factory.mktemp("sglang"))
