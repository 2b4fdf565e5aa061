"""Merging with a git that needs a work tree for it (before 2.38).

``git merge`` uses the same strategy (ort) as ``git merge-tree``, so the result is the
same; tests compare the two byte for byte. The work tree that it needs is temporary and
holds only the files to merge.
"""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path

from overlaykit.core import git
from overlaykit.core.errors import EnvironmentFailure

_WHO = git.identity("overlay", "overlay@localhost", "@0 +0000")
# `git merge` labels our side HEAD; `git merge-tree` uses the name that it was given.
_OURS = re.compile(rb"^<{7} HEAD(?=$|:)", re.M)


def merge_checked_out(
    objects: Path, ours: str, theirs: str
) -> tuple[dict[str, bytes], tuple[str, ...]]:
    """Merge two commits of an object store; return the files and conflicted paths."""
    with tempfile.TemporaryDirectory(prefix="overlay-merge-") as scratch:
        top = Path(scratch)
        _make_repository(top / ".git", ours)
        env = {**_WHO, "GIT_OBJECT_DIRECTORY": str(objects)}
        git.run(top, "read-tree", "--reset", "-u", "HEAD", env=env)
        done = git.run(
            top, "merge", "-q", "-s", "ort", "--no-commit", "--no-ff", "--no-stat",
            theirs, env=env, ok=(0, 1),
        )  # fmt: skip
        conflicts: tuple[str, ...] = ()
        if done.returncode:
            listed = git.run(top, "ls-files", "--unmerged", "-z", env=env).stdout
            rows = filter(None, os.fsdecode(listed).split("\0"))
            conflicts = tuple(dict.fromkeys(row.split("\t", 1)[1] for row in rows))
            if not conflicts:
                message = done.stderr.decode(errors="replace").strip()
                raise EnvironmentFailure(f"git merge failed: {message}")
        files = _files(top)
        for path in conflicts:
            if path in files:
                files[path] = _OURS.sub(b"<<<<<<< " + ours.encode(), files[path])
        return files, conflicts


def _make_repository(folder: Path, head: str) -> None:
    """Make the smallest folder that git accepts as a repository, without a process."""
    for name in ("refs", "info"):
        (folder / name).mkdir(parents=True)
    (folder / "HEAD").write_text(f"{head}\n", encoding="ascii")
    # A file named .gitattributes is data too: `git merge-tree` ignores it.
    attributes = folder / "info" / "attributes"
    attributes.write_text(git.NO_ATTRIBUTES, encoding="ascii")


def _files(top: Path) -> dict[str, bytes]:
    found = {}
    for folder, folders, names in os.walk(top):
        if Path(folder) == top:
            folders.remove(".git")
        for name in names:
            place = Path(folder) / name
            found[place.relative_to(top).as_posix()] = place.read_bytes()
    return found
