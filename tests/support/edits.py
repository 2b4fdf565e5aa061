"""Changes to a test's own trees and clones."""

from __future__ import annotations

from pathlib import Path

from conftest import IDENTITY
from overlaykit.core import git


def edit(root: Path, path: str, old: str, new: str) -> None:
    """Replace a text that the file has once."""
    place = root / path
    text = place.read_text(encoding="utf-8")
    assert text.count(old) == 1
    place.write_text(text.replace(old, new), encoding="utf-8")


def commit(clone: Path, message: str = "x") -> None:
    """Commit everything, ignored files too."""
    git.run(clone, "add", "-A", "-f")
    git.run(clone, "commit", "-q", "-m", message, env=IDENTITY)
