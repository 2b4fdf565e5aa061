"""Survey the recorded releases and write the page: ``python tests/releases``."""

from __future__ import annotations

import argparse
import sys
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "scripts"), str(ROOT / "tests")]

from conftest import Pins  # noqa: E402
from overlaykit.cli import progress  # noqa: E402
from overlaykit.core.errors import InputError, OverlayError  # noqa: E402
from overlaykit.series.carried import load_overlay  # noqa: E402
from overlaykit.series.manifest import Target  # noqa: E402
from overlaykit.sources.packages import fetch  # noqa: E402
from overlaykit.sources.releases import known, release_tree  # noqa: E402
from overlaykit.trees.tree import Tree  # noqa: E402
from releases.report import write  # noqa: E402
from releases.survey import Surveyed, survey  # noqa: E402
from xscale.liveness import probe  # noqa: E402
from xscale.numeric import CaseResult, Pool, reduced_matrix  # noqa: E402
from xscale.numeric.formats import FORMATS  # noqa: E402


def main() -> int:
    """Write the page. Returns 0, or the exit code of the error."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--jobs", type=int, default=1, help="number of processes (default 1)"
    )
    jobs = parser.parse_args().jobs
    try:
        overlay = load_overlay(ROOT)
        wheels = {n: fetch(ROOT, c.target, c.lock.dist) for n, c in overlay.items()}
        aiter = Pins(overlay, wheels).patched("aiter")
        target = overlay["sglang"].target
        team = Pool("cpu", jobs)
        found = [
            _survey(team, target, release.version, aiter)
            for release in known(ROOT, target.package_dist.name)
        ]
        ran_with = {k: v for k, v in team.about.items() if k != "processes"}
    except OverlayError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    ran_with["AITER"] = f"{wheels['aiter'].name} with our patch"
    for path in write(ROOT, found, ran_with | _readers()):
        print(path.relative_to(ROOT))
    return 0


def _readers() -> dict[str, str]:
    """The versions of packages that a format's reader needs, as far as installed."""
    found = {}
    for reader in (form.reader for form in FORMATS):
        if reader and reader[2]:
            with suppress(PackageNotFoundError):
                found[reader[2]] = version(reader[2])
    return found


def _survey(team: Pool, target: Target, release: str, aiter: Tree) -> Surveyed:
    tree = release_tree(ROOT, target, release)
    outcomes: tuple[CaseResult, ...] = ()
    missing: tuple[str, ...] = ()
    try:
        outcomes = team.run(tree, aiter, reduced_matrix(), None, progress)
    except InputError as error:
        missing = tuple(finding.what for finding in error.findings)
    print(release, file=sys.stderr)
    # Each case once and sorted: several processes may have run cases that are the same
    # on this tree.
    once = {str(outcome.case): outcome for outcome in outcomes}
    lives = {form.name: probe(tree, aiter, form) for form in FORMATS}
    return survey(release, tree, [once[case] for case in sorted(once)], lives, missing)


if __name__ == "__main__":
    sys.exit(main())
