#!/usr/bin/env python3
"""The README's picture of a gate's report: ``docs/report_picture.py RUN``.

RUN is the folder of a finished gate (``ci/gate.py --out RUN``). Chromium draws the top
of its report.html as it is.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

PICTURE = Path(__file__).resolve().parent / "pictures" / "report.png"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
SIZE = "1100,1000"


def main() -> int:
    report = Path(sys.argv[-1]).resolve() / "report.html"
    if len(sys.argv) != 2 or not report.is_file():
        print(f"{report} is not a file: name a finished gate's folder", file=sys.stderr)
        return 2
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        print(f"none of {', '.join(BROWSERS)} is installed", file=sys.stderr)
        return 5
    with tempfile.TemporaryDirectory() as profile:
        options = (
            *("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"),
            *(f"--user-data-dir={profile}", f"--window-size={SIZE}"),
            *(f"--screenshot={PICTURE}", report.as_uri()),
        )
        done = subprocess.run([browser, *options], capture_output=True, check=False)
    if done.returncode or not PICTURE.is_file():
        print(done.stderr.decode(errors="replace"), file=sys.stderr)
        return 5
    print(PICTURE.relative_to(PICTURE.parents[2]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
