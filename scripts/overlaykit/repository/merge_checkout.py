"""A merge for a git that merges in a work tree alone (before 2.38).

``git merge`` has the same strategy (ort) as ``git merge-tree``, so the merge is made by
the same rules; it wants a work tree, and gets one that holds the few files at hand and
lasts as long as the merge. Tests compare the two, byte for byte.
"""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path

from overlaykit.core import git
from overlaykit.core.errors import EnvironmentFailure

_WHO = git.identity("overlay", "overlay@localhost", "@0 +0000")
# How `git merge` calls what it merges into; `git merge-tree` calls it as it was given.
_OURS = re.compile(rb"^<{7} HEAD(?=$|:)", re.M)


def merge_checked_out(
    objects: Path, ours: str, theirs: str
) -> tuple[dict[str, bytes], tuple[str, ...]]:
    """Merge two commits of an object store: the files, and which of them conflict."""
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
                said = done.stderr.decode(errors="replace").strip()
                raise EnvironmentFailure(f"git merge failed: {said}")
        files = _files(top)
        for path in conflicts:
            if path in files:
                files[path] = _OURS.sub(b"<<<<<<< " + ours.encode(), files[path])
        return files, conflicts


def _make_repository(folder: Path, head: str) -> None:
    """As much of a repository as git needs to take it for one, without a process."""
    for name in ("refs", "info"):
        (folder / name).mkdir(parents=True)
    (folder / "HEAD").write_text(f"{head}\n", encoding="ascii")
    # Files are data, also one named .gitattributes: `git merge-tree` heeds none here.
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
