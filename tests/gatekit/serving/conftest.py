"""The client of the pinned release; tests that need it are skipped without."""

from __future__ import annotations

from pathlib import Path

import pytest

from conftest import Pins
from support.serving_client import lay_out, skip_without_packages


@pytest.fixture(scope="session")
def sglang(pins: Pins, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For PYTHONPATH: the pinned release's own client."""
    skip_without_packages()
    target = pins.bases("sglang")[0]
    return lay_out(pins.wheels[target], tmp_path_factory.mktemp("sglang"))
