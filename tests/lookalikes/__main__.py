"""Run the suite and write its page: ``python tests/lookalikes``."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "scripts"), str(ROOT / "tests")]

from lookalikes.report import write  # noqa: E402
from lookalikes.runner import missing_tools, run_all, versions  # noqa: E402
from overlaykit.series.carried import load_overlay  # noqa: E402
from overlaykit.sources.packages import fetch  # noqa: E402
from overlaykit.trees.tree import WheelTree  # noqa: E402


def main() -> int:
    """Exit 0 when written; 5 where a tool of the table is not installed."""
    if missing := missing_tools():
        print(f"not installed: {', '.join(missing)}", file=sys.stderr)
        return 5
    carried = load_overlay(ROOT)["sglang"]
    wheel = fetch(ROOT, carried.target, carried.lock.dist)
    pin = WheelTree(wheel, carried.target.site_layout())
    for path in write(ROOT, run_all(carried, pin), versions()):
        print(path.relative_to(ROOT))
    return 0


if __name__ == "__main__":
    sys.exit(main())
