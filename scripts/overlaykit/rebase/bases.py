"""The old base and the new base of a rebase."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec

from overlaykit.core.errors import EnvironmentFailure, Finding, InputError
from overlaykit.core.wording import quoted
from overlaykit.repository import clones
from overlaykit.series.carried import Carried
from overlaykit.series.lock import LockedDist
from overlaykit.series.manifest import Target
from overlaykit.sources.bases import pinned_base
from overlaykit.sources.packages import describe, fetch_tree
from overlaykit.sources.releases import obtain, released
from overlaykit.trees.tree import GitTree, Tree, WheelTree

_PLAIN = "100644"


@dataclass(frozen=True)
class NewBase:
    """The base to rebase onto. ``dist`` is None for a commit, which has no wheel.

    ``modes`` has the git modes of files that are not 100644.
    """

    target: Target
    tree: Tree
    dist: LockedDist | None
    modes: Mapping[str, str]


def resolve(clone: Path, ref: str) -> str:
    """Resolve a name to a commit of a clone. Raises InputError if there is none."""
    name = f"{ref}^{{commit}}"
    found = clones.run(clone, "rev-parse", "--verify", "-q", name, ok=(0, 1, 128))
    if found.returncode == 0:
        return found.stdout.decode().strip()
    here = quoted(str(clone))
    step = f"run git -C {here} fetch --tags, or name another (git branch -a, git tag)"
    if _is_shallow(clone):
        step = f"the clone is shallow: run git -C {here} fetch --unshallow --tags"
    finding = Finding(
        "the commit does not exist", path=str(clone), found=ref, next_step=step
    )
    raise InputError(f"{clone} has no commit {ref}", (finding,))


@contextmanager
def new_base(
    root: Path, carried: Carried, onto: str, clone: Path | None
) -> Iterator[NewBase]:
    """A released version, or a commit of ``clone``, with the new files that the series
    ``carried`` has, if any. See :func:`obtain`."""
    target = carried.target
    shares = target.overlay or (carried.name if carried.new_files else None)
    if clone is not None:
        with GitTree(clone, onto) as tree:
            made = msgspec.structs.replace(target, overlay=shares, tag=None, image=None)
            modes = {path: mode for path, mode in tree.entries() if mode != _PLAIN}
            yield NewBase(made, tree, None, modes)
        return
    wheel = obtain(root, target, onto)
    # Derive the tag only if upstream names its tags after versions.
    tag = f"v{onto}" if target.tag == f"v{target.dist.version}" else None
    made = msgspec.structs.replace(released(target, onto), overlay=shares, tag=tag)
    release = WheelTree(wheel, target.site_layout())
    named = ((path, release.mode(path)) for path in release.paths())
    modes = {path: mode for path, mode in named if mode != _PLAIN}
    yield NewBase(made, release, describe(wheel), modes)


@contextmanager
def old_base(root: Path, carried: Carried, clone: Path | None) -> Iterator[Tree]:
    """The pinned contents, from the clone, the cache or the package index.

    If they are in none of these, raises EnvironmentFailure, which says what to fetch.
    """
    with pinned_base(root, carried, clone or root) as base:
        if base is not None:
            yield base
            return
    try:
        release_tree = fetch_tree(root, carried.target, carried.lock.dist)
    except EnvironmentFailure as error:
        release, step = carried.target.release, "run scripts/fetch.py with a network"
        if clone is not None:
            deepen = (
                "fetch --unshallow --tags" if _is_shallow(clone) else "fetch --tags"
            )
            step += f", or run git -C {clone} {deepen}"
        finding = Finding(
            "the files of the old base were not found",
            expected=f"{release}, in the cache, on the package index"
            + (f" or in {clone}" if clone is not None else ""),
            found=error.message,
            next_step=step,
        )
        what = f"{release} was not found, and a rebase needs it"
        raise EnvironmentFailure(what, (finding, *error.findings)) from error
    yield release_tree


def _is_shallow(clone: Path) -> bool:
    done = clones.run(clone, "rev-parse", "--is-shallow-repository", ok=(0, 128))
    return done.stdout.strip() == b"true"
