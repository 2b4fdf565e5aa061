"""Which target a path holds, told by content and never by its name."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from overlaykit.carried import Carried
from overlaykit.errors import Finding, InputError
from overlaykit.trees import REPOSITORY, DirectoryTree, Layout


@dataclass(frozen=True)
class Found:
    """A target found at a path, as a tree under repository names."""

    carried: Carried
    tree: DirectoryTree


def find_targets(paths: Iterable[Path], overlay: Mapping[str, Carried]) -> list[Found]:
    """The targets at the paths; a site-packages may hold several.

    Raises InputError for a path that holds none, or one target found twice.
    """
    found: list[Found] = []
    for path in paths:
        here = _find(path, overlay)
        for one in here:
            if one.tree.root in [f.tree.root for f in found]:
                raise InputError(f"{one.tree.root} is named more than once")
        found += here
    return found


def _find(path: Path, overlay: Mapping[str, Carried]) -> list[Found]:
    if not path.is_dir():
        what = "is not a directory" if path.exists() else "does not exist"
        raise InputError(f"{path} {what}")
    root = Path(os.path.realpath(path))
    found = []
    for carried in overlay.values():
        target = carried.target
        for top, layout in (
            (root, REPOSITORY),
            (root / target.package, target.package_layout()),
            (root, target.package_layout()),
        ):
            if _holds(carried, DirectoryTree(top, layout)):
                found.append(Found(carried, DirectoryTree(top, layout)))
                break
    if not found:
        raise InputError(
            f"{path} holds no target of this overlay",
            tuple(
                Finding(
                    f"no {name} here",
                    expected=f"{_marker(carried)} below a clone, or "
                    f"{_inside(carried)} below site-packages",
                    next_step="give a clone, an unpacked source tree, a site-packages "
                    "or the installed package's directory",
                )
                for name, carried in overlay.items()
            ),
        )
    return found


def _holds(carried: Carried, tree: DirectoryTree) -> bool:
    """Whether any file that the series touches is there, so that drift still counts."""
    return any(
        os.path.lexists(tree.root / (tree.layout.inside(path) or os.devnull))
        for path in carried.series.paths
    ) and (tree.layout is REPOSITORY or _is_package(tree.root, carried))


def _is_package(root: Path, carried: Carried) -> bool:
    """A package's own directory, not one in a repository that is given as a whole."""
    return root.name == carried.target.package and (root / "__init__.py").exists()


def _marker(carried: Carried) -> str:
    return carried.series.paths[0]


def _inside(carried: Carried) -> str:
    layout: Layout = carried.target.site_layout()
    return layout.inside(_marker(carried)) or _marker(carried)
