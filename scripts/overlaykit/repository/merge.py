"""Three-way merges by git itself, in a scratch store.

The merge is made by ``git merge-tree`` (the ort strategy) or, if git does not have it,
by ``git merge`` with the same strategy (:mod:`overlaykit.repository.merge_checkout`).
The store is a bare repository with only the files to merge; the user's repository is
not written. Ort follows renames, but cannot tell look-alike blocks apart, so callers
must check the result (:mod:`overlaykit.planning.placement`).
"""

from __future__ import annotations

import os
import shutil
import tempfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from overlaykit.core import git, gitversion
from overlaykit.core.objects import (
    FOLDER,
    Entry,
    encode_object,
    object_id,
    tree_id,
    tree_rows,
)
from overlaykit.repository.merge_checkout import merge_checked_out

_AUTHOR = "overlay <overlay@localhost> 0 +0000"


@dataclass(frozen=True)
class Merged:
    """The merged files. ``conflicts`` names those with conflict markers."""

    files: Mapping[str, bytes]
    conflicts: tuple[str, ...]


class MergeStore:
    """A scratch object store; use it as a context manager."""

    def __init__(self) -> None:
        """Raises EnvironmentFailure if git is missing or too old."""
        self._in_work_tree = gitversion.version() < gitversion.MERGE_TREE
        self._root = Path(tempfile.mkdtemp(prefix="overlay-merge-"))
        try:
            # The smallest folder that git accepts as a repository.
            for name in ("objects", "refs"):
                (self._root / name).mkdir()
            (self._root / "HEAD").write_text("ref: refs/heads/main\n", encoding="ascii")
        except BaseException:
            shutil.rmtree(self._root, ignore_errors=True)
            raise

    def __enter__(self) -> MergeStore:
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self._root, ignore_errors=True)

    def merge(
        self,
        base: Mapping[str, bytes],
        ours: Mapping[str, bytes],
        theirs: Mapping[str, bytes],
    ) -> Merged:
        """Merge the changes from ``base`` to ``theirs`` into ``ours``.

        Both sides are commits with ``base`` as parent: git 2.39 has no
        ``--merge-base``.
        """
        root = self._commit(base)
        sides = [self._commit(side, root) for side in (ours, theirs)]
        if self._in_work_tree:
            return Merged(*merge_checked_out(self._root / "objects", *sides))
        done = git.run(
            self._root, "merge-tree", "--write-tree", "-z", "--name-only", *sides,
            ok=(0, 1),
        )  # fmt: skip
        tree, *rest = os.fsdecode(done.stdout).split("\0")
        conflicts = rest[: rest.index("")] if done.returncode else []
        return Merged(self._files(tree), tuple(conflicts))

    def diff(
        self, path: str, mode: str, before: bytes, after: bytes, context: int
    ) -> bytes:
        """Git's diff of one file, in the format of a patch file."""
        trees = [
            tree_id({path: Entry(mode, self._write("blob", data))}, self._write)
            for data in (before, after)
        ]
        return git.run(
            self._root, "diff", "--full-index", f"--unified={context}",
            "--diff-algorithm=myers", "--indent-heuristic", "--inter-hunk-context=0",
            "--no-renames", "--no-ext-diff", "--no-textconv", "--no-color",
            "--src-prefix=a/", "--dst-prefix=b/", *trees,
        ).stdout  # fmt: skip

    def _files(self, tree: str) -> dict[str, bytes]:
        """The files of a tree that git has just written to the store."""
        files: dict[str, bytes] = {}
        for name, (mode, oid) in tree_rows(self._read(tree), len(tree) // 2):
            if mode == FOLDER:
                inner = self._files(oid)
                files |= {f"{name}/{path}": data for path, data in inner.items()}
            else:
                files[name] = self._read(oid)
        return files

    def _read(self, oid: str) -> bytes:
        """An object's contents; a git process for each would cost more than merging."""
        place = self._root / "objects" / oid[:2] / oid[2:]
        if not place.exists():
            # Git has packed it.
            kind = git.text(self._root, "cat-file", "-t", oid)
            return git.run(self._root, "cat-file", kind, oid).stdout
        return zlib.decompress(place.read_bytes()).partition(b"\0")[2]

    def _commit(self, files: Mapping[str, bytes], parent: str | None = None) -> str:
        entries = {
            path: Entry("100644", self._write("blob", data))
            for path, data in files.items()
        }
        lines = [f"tree {tree_id(entries, self._write)}"]
        lines += [f"parent {parent}"] if parent else []
        lines += [f"author {_AUTHOR}", f"committer {_AUTHOR}", "", "files\n"]
        return self._write("commit", "\n".join(lines).encode())

    def _write(self, kind: str, data: bytes) -> str:
        """Write a loose object; a git process for each would cost more than merging."""
        oid = object_id(kind, data)
        place = self._root / "objects" / oid[:2] / oid[2:]
        if not place.exists():
            place.parent.mkdir(exist_ok=True)
            place.write_bytes(zlib.compress(encode_object(kind, data), 1))
        return oid
