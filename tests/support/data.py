"""The folder of real data that is not part of this repository."""

from __future__ import annotations

import os
from pathlib import Path

DATA = Path(
    os.environ.get("OVERLAY_TEST_DATA")
    or Path(__file__).resolve().parents[3] / "shared" / "data"
)
