"""Locks a base: what the manifest says of it, looked up, checked and recorded.

A commit that is recorded never changes by itself. Of a base that is a package and a
commit, the lock is made only if both have the same files where the series touches them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from overlaykit.core.errors import EnvironmentFailure, Finding, InputError
from overlaykit.repository.refs import tag_in
from overlaykit.series.lock import (
    LockedDist,
    LockedTarget,
    TreeWithModes,
    lock_target,
    pinned_blobs,
    with_commit,
)
from overlaykit.series.manifest import MANIFEST, Target
from overlaykit.series.quilt import NewFile, Series
from overlaykit.sources import commits
from overlaykit.trees.commit import CommitTree


def pinned_commit(
    target: Target, known: LockedTarget | None, sources: Sequence[Path] = ()
) -> str:
    """The commit of a base that is no package: the manifest's, or its tag's.

    The tag is looked up once; after that the lock's commit counts. Raises InputError if
    a clone has the tag at another commit, or nobody has it.
    """
    tag = target.tag
    commit = target.commit
    if commit is None and known is not None and known.tag == tag:
        commit = known.commit
    if tag is None:
        assert commit is not None, "parse_manifest checks this"
        return commit
    if commit is None:
        return commits.tag_commit(target, tag, sources)
    for clone in sources:
        commits.refuse_moved(target, commit, tag_in(clone, tag), str(clone))
    return commit


def lock_base(
    root: Path,
    target: Target,
    base: TreeWithModes,
    dist: LockedDist | None,
    parts: tuple[Series, tuple[NewFile, ...]],
    known: LockedTarget | None,
    sources: Sequence[Path] = (),
) -> LockedTarget:
    """Apply the series to its base and record the result.

    ``base`` is a package's tree, with its record ``dist``, or a :class:`CommitTree`.
    ``known`` is the target's part of the lock so far. Raises InputError if the base
    does not fit the series (:func:`lock_target`), or if package and commit differ.
    """
    made = lock_target(target, base, dist, *parts, None)
    if isinstance(base, CommitTree):
        if taken := [new.path for new in made.new_files if base.takes(new.path)]:
            raise InputError(f"{taken[0]} is not a new file: {base.name} contains it")
        return with_commit(made, base.commit)
    return with_commit(made, _proven(root, target, made, known, sources))


def _proven(
    root: Path,
    target: Target,
    made: LockedTarget,
    known: LockedTarget | None,
    sources: Sequence[Path],
) -> str | None:
    """The commit of a package's base, after the proof that both agree.

    A base whose commit the manifest does not name has one if a clone has its tag.
    """
    same = known is not None and (known.tag, known.dist) == (made.tag, made.dist)
    before = known.commit if known is not None and same else None
    commit = target.commit or before
    for clone in sources if target.tag is not None else ():
        found = tag_in(clone, target.tag or "")
        if commit is None:
            commit = found
        else:
            commits.refuse_moved(target, commit, found, str(clone))
    if commit is None or (commit == before and known and _covers(known, made)):
        return commit
    try:
        tree, _ = commits.obtain(root, target, commit, sources)
    except EnvironmentFailure:
        if target.commit is None and commit == before:
            # Nothing needs this commit, and it is not proven for these files.
            return None
        raise
    if differences := tuple(_differences(target, made, tree)):
        what = f"{target.package} at {commit[:12]} and {target.release} differ"
        raise InputError(f"{what} in files that the series touches", differences)
    return commit


def _covers(known: LockedTarget, made: LockedTarget) -> bool:
    """Whether the proof in the lock so far was about all these files."""
    new = {file.path for file in made.new_files}
    return pinned_blobs(made).items() <= pinned_blobs(known).items() and new <= {
        file.path for file in known.new_files
    }


def _differences(
    target: Target, made: LockedTarget, tree: CommitTree
) -> Iterator[Finding]:
    step = f"correct commit or dist in {MANIFEST}: they are not one state of upstream"
    for path, blob in pinned_blobs(made).items():
        found = tree.blob(path)
        if found != blob:
            yield Finding(
                "differs between the package and the commit",
                path=path,
                expected=f"blob {blob}, as in {target.release}",
                found=f"blob {found}" if found else "no such file",
                next_step=step,
            )
    for new in made.new_files:
        if tree.takes(new.path):
            what = "is not a new file: the commit contains it"
            yield Finding(what, path=new.path, expected="no file", next_step=step)
