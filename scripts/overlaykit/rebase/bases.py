"""The old base and the new base of a rebase."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import msgspec

from overlaykit.core.errors import EnvironmentFailure, Finding, InputError
from overlaykit.core.wording import quoted
from overlaykit.repository.refs import commit_of, is_shallow
from overlaykit.series.carried import Carried
from overlaykit.series.lock import LockedDist, TreeWithModes
from overlaykit.series.manifest import Target
from overlaykit.sources.bases import fetched, pinned_base
from overlaykit.sources.commits import obtain as obtain_commit
from overlaykit.sources.packages import describe, wheel_tree
from overlaykit.sources.releases import obtain, released
from overlaykit.trees.tree import Tree

_PLAIN = "100644"


@dataclass(frozen=True)
class NewBase:
    """The base to rebase onto. ``dist`` is None for a commit, which has no wheel."""

    target: Target
    tree: TreeWithModes
    dist: LockedDist | None

    @cached_property
    def modes(self) -> dict[str, str]:
        """The git modes of the files that are not 100644."""
        named = ((path, self.tree.mode(path)) for path in self.tree.paths())
        return {path: mode for path, mode in named if mode != _PLAIN}


def resolve(clone: Path, ref: str) -> str:
    """Resolve a name to a commit of a clone. Raises InputError if there is none."""
    if (found := commit_of(clone, ref)) is not None:
        return found
    here = quoted(str(clone))
    step = f"run git -C {here} fetch --tags, or name another (git branch -a, git tag)"
    if is_shallow(clone):
        step = f"the clone is shallow: run git -C {here} fetch --unshallow --tags"
    finding = Finding(
        "the commit does not exist", path=str(clone), found=ref, next_step=step
    )
    raise InputError(f"{clone} has no commit {ref}", (finding,))


def new_base(
    root: Path, carried: Carried, onto: str, commit: str | None, clone: Path | None
) -> NewBase:
    """A released version, or a commit, from ``clone`` if it is given, with the new
    files that the series ``carried`` has, if any.

    Raises what :func:`releases.obtain` and :func:`commits.obtain` raise.
    """
    target = carried.target
    shares = target.overlay or (carried.name if carried.new_files else None)
    if commit is not None:
        made = msgspec.structs.replace(
            target, overlay=shares, dist=None, commit=commit, tag=None, image=None
        )
        tree, _ = obtain_commit(root, made, commit, [clone] if clone else [])
        return NewBase(made, tree, None)
    released_target = carried.releases
    wheel = obtain(root, released_target, onto)
    # Derive the tag only if upstream names its tags after versions.
    dist = target.dist
    named = dist is not None and target.tag == f"v{dist.version}"
    made = msgspec.structs.replace(
        released(released_target, onto),
        overlay=shares,
        tag=f"v{onto}" if named else None,
    )
    return NewBase(made, wheel_tree(wheel, made), describe(wheel))


@contextmanager
def old_base(root: Path, carried: Carried, clone: Path | None) -> Iterator[Tree]:
    """The pinned contents, from the clone, the cache or the network.

    If they are in none of these, raises EnvironmentFailure, which says what to fetch.
    """
    with pinned_base(root, carried, clone or root) as base:
        if base is not None:
            yield base
            return
    sources = [clone] if clone is not None else []
    try:
        tree, _ = fetched(root, carried.target, carried.lock, sources)
    except EnvironmentFailure as error:
        release, step = carried.target.release, "run scripts/fetch.py with a network"
        if clone is not None:
            deepen = "fetch --unshallow --tags" if is_shallow(clone) else "fetch --tags"
            step += f", or run git -C {clone} {deepen}"
        finding = Finding(
            "the files of the old base were not found",
            expected=f"{release}, in the cache, on the network"
            + (f" or in {clone}" if clone is not None else ""),
            found=error.message,
            next_step=step,
        )
        what = f"{release} was not found, and a rebase needs it"
        raise EnvironmentFailure(what, (finding, *error.findings)) from error
    yield tree
