"""Everything in a clone that apply.py --commit may change, to be compared."""

from __future__ import annotations

from pathlib import Path

from conftest import snapshot
from overlaykit.core import git
from overlaykit.trees.locking import FOLDER

State = dict[str, object]


def state(clone: Path) -> State:
    """Files with their modes, HEAD, refs and the index; asserts that no temporary file
    is left."""
    folder = Path(git.text(clone, "rev-parse", "--absolute-git-dir"))
    left = [p.name for p in folder.iterdir() if p.name.startswith("overlay-")]
    assert left == []
    assert not (clone / FOLDER).exists()
    head = git.run(clone, "symbolic-ref", "-q", "HEAD", ok=(0, 1)).stdout.decode()
    unborn = git.run(clone, "rev-parse", "-q", "--verify", "HEAD", ok=(0, 1)).stdout
    return {
        "HEAD": head or unborn.decode(),
        "refs": git.text(clone, "for-each-ref"),
        "index": git.text(clone, "ls-files", "--stage", "-v"),
        "files": {p: (mode, data) for p, (mode, _, data) in snapshot(clone).items()},
    }


def locks(clone: Path) -> list[str]:
    """Git's locks, by their path in the git directory."""
    folder = Path(git.text(clone, "rev-parse", "--absolute-git-dir"))
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*.lock"))
