"""Files that git leaves out of a clone's work tree on purpose, and how to restore
them."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path, PurePosixPath

from overlaykit.core.git import top_of_clone
from overlaykit.core.wording import pasteable
from overlaykit.repository.index import read_entries
from overlaykit.repository.places import clone_location

LEFT_OUT = "git leaves it out of the work tree"
SKIP_WORKTREE = "is marked skip-worktree: git does not look at the file"
SKIPPED = "S"
_ON = ("true", "yes", "on", "1")


def skip_worktree_steps(root: Path, paths: Collection[str]) -> dict[str, str]:
    """The paths that git leaves out of the work tree, each with its next step. Git is
    not started for no paths, or for a tree that is not a clone."""
    if not paths or top_of_clone(root) is None:
        return {}
    return {
        entry.path: restore_step(root, entry.path)
        for entry in read_entries(root)
        if entry.path in paths and entry.tag.upper() == SKIPPED
    }


def restore_step(clone: Path, path: str) -> str:
    """The next step for a file that is marked skip-worktree."""
    git = ("git", "-C", str(clone))
    if clone_location(clone).settings.get("core.sparsecheckout", "").lower() in _ON:
        folder = str(PurePosixPath(path).parent)
        return (
            f"the checkout is sparse: {pasteable([*git, 'sparse-checkout', 'disable'])}"
            f", or {pasteable([*git, 'sparse-checkout', 'add', folder])}"
        )
    clear = pasteable([*git, "update-index", "--no-skip-worktree", path])
    return f"{clear}, then {pasteable([*git, 'checkout', '--', path])} if it is missing"
