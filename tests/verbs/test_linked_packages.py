"""A package that is a symbolic link in the given directory is not followed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from conftest import run_verb, snapshot
from overlaykit.core.errors import Exit

PACKAGE = "python/sglang"


@pytest.mark.parametrize("linked", ["the package", "the folder above it"])
@pytest.mark.parametrize("verb", ["apply", "verify"])
def test_a_linked_package_is_refused(
    verb: str, linked: str, slim: Callable[..., Path], tmp_path: Path
) -> None:
    clone, named = slim(), tmp_path / "named"
    named.mkdir()
    if linked == "the package":
        link, to = named / "sglang", clone / PACKAGE
        (named / "sglang-0.5.11.dist-info").mkdir()
    else:
        link, to = named / "python", clone / "python"
    link.symlink_to(to)
    before = snapshot(clone)
    done = run_verb(verb, str(named))
    assert done.returncode == Exit.CANNOT_APPLY, done.stderr
    assert f"{link}: is a symbolic link" in done.stderr
    assert f"name the directory itself: {to}" in done.stderr
    assert snapshot(clone) == before
    assert [p.name for p in named.iterdir() if p.name.startswith(".")] == []


def test_a_link_given_by_name_means_its_directory(
    slim: Callable[..., Path], tmp_path: Path
) -> None:
    clone, link = slim(), tmp_path / "link"
    link.symlink_to(clone / PACKAGE)
    twice = run_verb("apply", "--dry-run", str(link), str(clone))
    assert twice.returncode == Exit.USAGE
    assert "named more than once" in twice.stderr
    done = run_verb("apply", str(link))
    assert done.returncode == 0, done.stderr
    assert f"applied  ({clone})" in done.stdout
