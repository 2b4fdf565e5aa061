"""Regenerate ``outputs/``: the output of each release's real client for a small run.

``PYTHONPATH=scripts:ci:tests PYTHON tests/gatekit/serving/make_outputs.py
WHEEL...``, with a Python that has aiohttp, msgspec, numpy, orjson, requests and tqdm.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from gatekit.serving.command import BASELINE
from gatekit.serving.plan import Arm, Bench, PlannedRun
from gatekit.serving.points import Point
from support.serving_client import lay_out
from support.serving_stand_in import StandIn, serving

OUTPUTS = Path(__file__).with_name("outputs")
POINT = Point(24, 8, 1)


def main(wheels: list[Path]) -> None:
    OUTPUTS.mkdir(exist_ok=True)
    for wheel in wheels:
        version = wheel.name.split("-")[1]
        with (
            tempfile.TemporaryDirectory() as folder,
            serving(StandIn("a-model", tpot_s=0.002)) as server,
        ):
            root = lay_out(wheel, Path(folder))
            arm = Arm(BASELINE, server.url)
            bench = Bench((arm,), (POINT,), 1, Path(folder), "here")
            (bench.out / "raw").mkdir()
            argv = bench.argv(PlannedRun(POINT, BASELINE, 1))
            environment = {**os.environ, "PYTHONPATH": str(root)}
            subprocess.run(argv, env=environment, check=True, timeout=120)
            (written,) = (bench.out / "raw").iterdir()
            place = OUTPUTS / f"{version}.jsonl"
            place.write_bytes(written.read_bytes())


if __name__ == "__main__":
    main([Path(name) for name in sys.argv[1:]])
